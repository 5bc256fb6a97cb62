"""Forward noising laws and the table of their names."""

from .cld import CLD
from .continuous import EDM, VE, VP, FlowMatching, SubVP
from .discrete import Discrete
from .gaussian import GaussianProcess, Point
from .trig import TrigFlow
from .vdm import VDM

__all__ = [
    "CLD", "EDM", "VDM", "VE", "VP", "Discrete", "FlowMatching", "GaussianProcess", "Point", "SubVP",
    "TrigFlow",
]  # fmt: skip
