"""Batches of seats, and the executors that bind their stages: `Eager` calls them, `Graph` replays a captured
step."""

from __future__ import annotations

from .base import Executor
from .batch import Batch
from .capacity import Capacity
from .capture import GraphError
from .eager import Eager
from .graph import Graph
from .job import Job
from .rows import BatchFull

__all__ = [
    "Batch", "BatchFull", "Capacity", "Eager", "Executor", "Graph", "GraphError", "Job",
]  # fmt: skip
