"""The table of numbers that a sampler is, and what transforms and packs it. Host only, float64."""

from .plan import Plan
from .row import CELLS, Call, Row, Span

__all__ = ["CELLS", "Call", "Plan", "Row", "Span"]
