"""The table of numbers that a sampler is, and what transforms and packs it. Host only, float64."""

from .plan import CELLS, Call, Plan, Row, Span

__all__ = ["CELLS", "Call", "Plan", "Row", "Span"]
