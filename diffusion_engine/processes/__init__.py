"""Forward noising laws and the table of their names."""

from .cld import CLD
from .discrete import Discrete
from .gaussian import EDM, VE, VP, FlowMatching, GaussianProcess, Point, SubVP

__all__ = [
    "CLD", "EDM", "VE", "VP", "Discrete", "FlowMatching", "GaussianProcess", "Point", "SubVP",
]  # fmt: skip
