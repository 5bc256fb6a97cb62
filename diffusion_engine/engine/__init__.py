"""Continuous batching: a queue in front of batches, on a thread of its own."""

from .engine import Engine
from .errors import Cancelled, DeadlineMissed, EngineClosed, EngineError, NonFinite, QueueFull
from .events import Event, Events
from .handle import Handle

__all__ = [
    "Cancelled", "DeadlineMissed", "Engine", "EngineClosed", "EngineError", "Event", "Events", "Handle",
    "NonFinite", "QueueFull",
]  # fmt: skip
