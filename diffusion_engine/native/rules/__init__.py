"""What becomes of each ATen operation. A rule returns NotImplemented where it has nothing for its arguments:
torch does it then."""

from .table import RULES

__all__ = ["RULES"]
