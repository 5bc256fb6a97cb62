"""Learned coefficients of solvers: tables as JSON files, for the solver "learned"."""

from .epd import epd
from .files import names, read, write
from .plans import table_of
from .table import Table

__all__ = ["Table", "epd", "names", "read", "table_of", "write"]
