"""d eps / dg for the solver 'genie': a distilled head, attached to a U-Net, or the exact derivative."""

from .attach import attach
from .exact import exact_derivative
from .head import Head

__all__ = ["Head", "attach", "exact_derivative"]
