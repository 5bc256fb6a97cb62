"""A sampling engine for diffusion models: every sampler is a table, one fused kernel runs it."""

from . import processes
from .grids import GRIDS
from .guidance import classifier_free, inpaint
from .network import ScoreNetwork
from .plan import Call, Plan, Row
from .request import Result
from .sampler import Progress, Sampler
from .solvers import SOLVERS, Solver

__version__ = "0.1.0"

__all__ = [
    "GRIDS",
    "SOLVERS",
    "Call",
    "Plan",
    "Progress",
    "Result",
    "Row",
    "Sampler",
    "ScoreNetwork",
    "Solver",
    "classifier_free",
    "inpaint",
    "processes",
]
