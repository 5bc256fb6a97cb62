"""How good samples of digits are: their distance from the training law, what they cover, what they show."""

from .features import Described, describe
from .frechet import FrechetDistance, moments
from .manifolds import precision_recall
from .quality import Estimate, Quality, quality
from .reference import Reference, shipped

__all__ = [
    "Described",
    "Estimate",
    "FrechetDistance",
    "Quality",
    "Reference",
    "describe",
    "moments",
    "precision_recall",
    "quality",
    "shipped",
]
