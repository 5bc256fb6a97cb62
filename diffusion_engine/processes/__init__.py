"""Forward noising laws and the table of their names."""

from .cld import CLD
from .discrete import Discrete
from .gaussian import EDM, VE, VP, FlowMatching, GaussianProcess, Point, SubVP
from .vdm import VDM

__all__ = [
    "CLD", "EDM", "VDM", "VE", "VP", "Discrete", "FlowMatching", "GaussianProcess", "Point", "SubVP",
]  # fmt: skip
