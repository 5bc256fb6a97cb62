"""Learned coefficients of solvers: tables as JSON files, for the solver "learned"."""

from .epd import epd
from .files import read, write
from .plans import table_of
from .table import Table

__all__ = ["Table", "epd", "read", "table_of", "write"]
