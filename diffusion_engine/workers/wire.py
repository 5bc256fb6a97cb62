"""What a server and a worker process write to each other, one frame each."""

from __future__ import annotations

from typing import Any

import msgspec

from .errors import Fault
from .messages import About, Asked, Made, Told


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message: what to serve.

    models   what `models.network_of` takes, by the name that requests use
    options  of InProcess; dtype as text
    choices  what a worker before it went by (choices.shared)
    memory   bytes that the process may take beside files and the device, None for any
    hang_s   seconds without a row after which it counts as hung; longer_s: where a call may be the first of
             its size and is recorded or compiled
    beat_s   seconds between two beats
    """

    models: dict[str, str]
    options: dict[str, Any]
    choices: dict[str, dict[str, Any]]
    memory: int | None
    hang_s: float
    longer_s: float
    beat_s: float


class Check(msgspec.Struct, frozen=True, tag=True):
    """Says whether a request suits its network, and does not run it."""

    asked: Asked


class Run(msgspec.Struct, frozen=True, tag=True):
    """Runs a request.

    watched  whether somebody reads its events
    """

    asked: Asked
    watched: bool


class Watch(msgspec.Struct, frozen=True, tag=True):
    """Somebody reads the events of a request from now on."""

    id: str


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Gives a request up."""

    id: str
    reason: str


ToWorker = Begin | Check | Run | Watch | Cancel


class Chose(msgspec.Struct, frozen=True, tag=True):
    """What the worker goes by has changed; it is said before a result that came of it."""

    choices: dict[str, dict[str, Any]]


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Its models are served."""

    models: list[About]


class Unfit(msgspec.Struct, frozen=True, tag=True):
    """Its models cannot be served, whichever process tries."""

    reason: str


class Taken(msgspec.Struct, frozen=True, tag=True):
    """A request suits its network: its rows and its cost."""

    id: str
    rows: int
    cost: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A request is refused, was given up, or failed."""

    id: str
    fault: Fault


class Done(msgspec.Struct, frozen=True, tag=True):
    """A request is done."""

    id: str
    made: Made


class Heard(msgspec.Struct, frozen=True, tag=True):
    """An event of a request that is watched."""

    id: str
    told: Told


class Broken(msgspec.Struct, frozen=True, tag=True):
    """The process can serve nothing more, and ends."""

    reason: str


ToServer = Chose | Ready | Unfit | Taken | Ended | Done | Heard | Broken


class Beat(msgspec.Struct, frozen=True):
    """A sign of life, on a connection of its own.

    still_s  seconds since a busy engine did something; 0 of one that is idle
    limit_s  after how many it counts as hung
    started  requests that have had their first seat
    engine   the engine's snapshot
    """

    still_s: float
    limit_s: float
    started: list[str]
    engine: dict[str, Any]
