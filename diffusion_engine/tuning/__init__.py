"""Learning the coefficients of a solver for a network: tables for the solver "learned"."""

from .baselines import Baseline, baselines, compared
from .families import FAMILIES
from .tune import Progress, Tuned, tune

__all__ = ["FAMILIES", "Baseline", "Progress", "Tuned", "baselines", "compared", "tune"]
