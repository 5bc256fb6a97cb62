"""Serving under load: an engine beside static batches, one request at a time, and lockstep."""

from .bench import Bench
from .load import DEFAULT, Arrival, Kind, at_once, mix_of
from .report import Line, Report

__all__ = ["DEFAULT", "Arrival", "Bench", "Kind", "Line", "Report", "at_once", "mix_of"]
