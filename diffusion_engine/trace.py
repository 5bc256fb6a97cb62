"""Named ranges of what the engine does, for Nsight's tools and for `profile`; off unless asked for.

The ranges are plan, capture, replay, row, network, step and decode, and each fused op by its name.
A loop binds its calls with `traced` once, before it starts: while nothing listens these are the calls
themselves. So what was bound before `enable()` stays silent; what is kept across runs belongs under
a key with `active()` in it, or is dropped by `watch`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from threading import Lock
from typing import Any, TypeVar

DOMAIN = "diffusion_engine"  # of NVTX: Nsight's tools show and filter the ranges by it
VARIABLE = "DIFFUSION_ENGINE_NVTX"

# (name, payload or None) -> the range, entered once
Listener = Callable[[str, int | None], AbstractContextManager[Any]]
Call = TypeVar("Call", bound=Callable[..., Any])

_OFF = nullcontext()
_listeners: dict[str, Listener] = {}  # replaced, never changed: readers take no lock
_watchers: list[Callable[[], None]] = []
_changing = Lock()


def enable() -> None:
    """Makes the ranges NVTX ranges; DIFFUSION_ENGINE_NVTX=1 does so from the start."""
    with _changing:
        _listen(_listeners | {"nvtx": nvtx_range})


def disable() -> None:
    """Ends what `enable` began."""
    _cease("nvtx")


@contextmanager
def listening(name: str, listener: Listener) -> Iterator[None]:
    """While it is entered the ranges go to `listener`, too, which goes by a name of its own."""
    with _changing:
        if name in _listeners:
            raise RuntimeError(f"{name!r} listens already; one at a time in a process")
        _listen(_listeners | {name: listener})
    try:
        yield
    finally:
        _cease(name)


def active() -> tuple[str, ...]:
    """Names of what listens, for the keys of what is kept with its ranges bound."""
    return tuple(_listeners)


def watch(changed: Callable[[], None]) -> None:
    """Calls `changed` whenever somebody begins or ceases to listen."""
    _watchers.append(changed)


def traced(name: str, call: Call, indexed: bool = False) -> Call:
    """The call inside a range of this name; the call itself while nothing listens.

    indexed  the call's first argument, a whole number, goes with the range as its payload
    """
    if not _listeners:
        return call

    def inside(*args: Any, **kwargs: Any) -> Any:
        with span(name, args[0] if indexed else None):
            return call(*args, **kwargs)

    return inside  # type: ignore[return-value]


def span(name: str, payload: int | None = None) -> AbstractContextManager[Any]:
    """A range of this name around a block, for places that are not hot."""
    listeners = tuple(_listeners.values())
    if not listeners:
        return _OFF
    return listeners[0](name, payload) if len(listeners) == 1 else _all(listeners, name, payload)


@contextmanager
def _all(listeners: tuple[Listener, ...], name: str, payload: int | None) -> Iterator[None]:
    with ExitStack() as stack:
        for listener in listeners:
            stack.enter_context(listener(name, payload))
        yield


def _cease(name: str) -> None:
    with _changing:
        _listen({key: each for key, each in _listeners.items() if key != name})


def _listen(listeners: dict[str, Listener]) -> None:
    global _listeners
    _listeners = listeners
    for changed in _watchers:
        changed()


class NvtxRange:
    """An NVTX range whose string and attributes were registered once; holds no state of a thread."""

    def __init__(self, name: str, payload: int | None) -> None:
        import nvtx

        # A stand-in that does nothing where no tool is attached to the process.
        self.domain = nvtx.get_domain(DOMAIN)
        self.attributes = self.domain.get_event_attributes(message=name, payload=payload)

    def __enter__(self) -> None:
        self.domain.push_range(self.attributes)

    def __exit__(self, *error: object) -> None:
        self.domain.pop_range()


@cache
def nvtx_range(name: str, payload: int | None) -> NvtxRange:
    """One for each name and payload: a payload changed in place could be another thread's."""
    return NvtxRange(name, payload)


if os.environ.get(VARIABLE, "0") not in ("", "0"):
    enable()
