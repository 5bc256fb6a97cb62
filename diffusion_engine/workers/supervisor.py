"""`Supervisor`: a Service on worker processes, one a device, that are replaced where they end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .. import checks
from .dispatch import Dispatch
from .errors import Full, GivenUp, NotReady
from .keeper import End, Keeper
from .messages import About, Asked
from .quarantine import Quarantine
from .request import Request
from .wire import Begin, Chose, Done, Ended, Heard, Taken

CAPACITY = 16
AGAIN = 1.0  # seconds, the least that a client is told to wait
LONGER = 300.0  # seconds that a first call may take where it is recorded or compiled
OPTIONS = (
    "accelerate", "aging", "backend", "batch", "capacity", "compile", "dtype", "executor", "max_bytes",
    "probe", "threads", "warm",
)  # fmt: skip


class Supervisor:
    """Keeps a queue in front of workers, binds requests late, and makes them again where a worker is lost.

    models      by name a shipped network, a .safetensors file, or package.module:function
    devices     one worker each
    options     of InProcess, those of `OPTIONS`; dtype as text
    max_queue   requests that wait or run at a time
    max_cost    entries x rows that one may ask for, None for any
    retries     workers more at which a request is made, where one is lost
    quarantine_s  seconds that a request like one that lost them all is refused
    memory      bytes that a worker may take beside files and a GPU's memory, None for any
    hang_s      seconds without a row after which a worker hangs, at least 10 rows
    longer_s    the same, of a call that may be the first of its size; None: 300 where calls are recorded or
                compiled, else hang_s
    start_s     seconds that a worker's start may take
    beat_s      seconds between two signs of life
    aging       seconds in the queue that raise a priority by one
    clock       of the quarantine, seconds that never go back

    Raises ValueError where an argument makes no sense.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        devices: Sequence[str] = ("cpu",),
        options: Mapping[str, Any] | None = None,
        *,
        max_queue: int = 1024,
        max_cost: int | None = None,
        retries: int = 2,
        quarantine_s: float = 3600.0,
        memory: int | None = None,
        hang_s: float = 5.0,
        longer_s: float | None = None,
        start_s: float = 600.0,
        beat_s: float = 0.25,
        aging: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = {"capacity": CAPACITY} | dict(options or {})
        checks.names("a Supervisor's options", self._options, OPTIONS)
        if not models or not devices:
            raise ValueError("give at least one model and one device")
        capacity = checks.whole(
            "capacity", self._options["capacity"], 1, "at least 1 sample a batch"
        )
        self._max_queue = checks.whole("max_queue", max_queue, 1, "at least 1 request")
        checks.whole("retries", retries, 0, "how often a request is made again")
        # Of those that were given up some may be at a worker still.
        self._options |= {"max_cost": max_cost, "max_queue": 2 * max_queue + 64}
        self._named, self._hang_s = dict(models), (hang_s, longer_s)
        self._memory, self._beat_s = memory, beat_s
        self._choices: dict[str, dict[str, Any]] = {}
        self.models: Mapping[str, About] = {}
        self._keepers = [
            Keeper(device, capacity, self._begin, self._ready, self._lost, self._got, start_s)
            for device in devices
        ]
        self._quarantine = Quarantine(quarantine_s, clock)
        self._dispatch = Dispatch(self._keepers, retries, self._quarantine, aging)
        self._here: dict[str, Request] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._finished: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._closing = False
        self._emptied: asyncio.Event | None = None
        self._failed: asyncio.Future[str] | None = None

    async def start(self) -> None:
        """Returns when requests are taken. Raises ServiceError where a model cannot be served, and why."""
        self._failed = asyncio.get_running_loop().create_future()
        first = self._keepers[:1] if self._measures else []  # the others go by what it measures
        starting: list[asyncio.Task[None]] = []
        try:
            for keepers in (first, self._keepers[len(first) :]):
                starting = [asyncio.create_task(keeper.start()) for keeper in keepers]
                await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self._end()
            raise
        self.models = {about.name: about for about in self._keepers[0].models}

    async def close(self, drain: float = 30.0) -> None:
        """Takes nothing more, lets what was accepted end for so many seconds, and cancels the rest."""
        self._closing, self._emptied = True, asyncio.Event()
        if self._here:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    await self._emptied.wait()
        for request in list(self._here.values()):
            request.fail(GivenUp("the service ended before the request was done"))
        await self._end()

    def objection(self) -> str | None:
        """Why it takes no requests now; None where it does."""
        if self._closing:
            return "the service ends"
        if not self.models:
            return "the service has not started yet"
        if any(keeper.ready for keeper in self._keepers):
            return None
        return "; ".join(dict.fromkeys(keeper.reason for keeper in self._keepers))

    async def lost(self) -> str:
        """Returns where no worker starts any more, and says why."""
        assert self._failed is not None, "it was not started"
        return await asyncio.shield(self._failed)

    async def submit(self, asked: Asked) -> Request:
        """Takes a request: returns when a worker found that it suits the network.

        Raises ValueError where it does not, TooLarge, Full, NotReady and Quarantined, and Failed where its
        network cannot be batched. That its deadline cannot be met `result` says.
        """
        self._look(asked)
        request = Request(asked, self._read, self._cancelled, self._over)
        self._here[asked.id] = request
        if asked.deadline is not None:
            late = f"it was not done after {asked.deadline:g} s"
            loop = asyncio.get_running_loop()
            self._timers[asked.id] = loop.call_later(asked.deadline, request.cancel, late)
        self._dispatch.add(request)
        try:
            await request.taken
        except asyncio.CancelledError:
            request.cancel("who asked for it left")
            raise
        return request

    def snapshot(self) -> dict[str, Any]:
        """What it is doing, as JSON-able values."""
        running = sum(request.status == "running" for request in self._here.values())
        return {
            "waiting": len(self._here) - running,
            "running": running,
            "finished": dict(self._finished),
            "restarts": dict(self._restarts),
            "quarantined": len(self._quarantine),
            "workers": [keeper.snapshot() for keeper in self._keepers],
        }

    @property
    def _measures(self) -> bool:
        """Whether workers choose something by its time."""
        named = self._options.get("executor", "eager") != "eager"
        return bool(named or self._options.get("accelerate") or self._options.get("threads"))

    def _begin(self, device: str) -> Begin:
        """What the worker of a device is told at its start."""
        hang_s, longer_s = self._hang_s
        if longer_s is None:
            slow = self._measures or self._options.get("compile") or not device.startswith("cpu")
            longer_s = max(hang_s, LONGER) if slow else hang_s
        return Begin(
            models=self._named,
            options=self._options | {"device": device},
            choices=self._choices,
            memory=self._memory,
            hang_s=hang_s,
            longer_s=longer_s,
            beat_s=self._beat_s,
        )

    def _look(self, asked: Asked) -> None:
        """Raises what keeps a request from a worker."""
        if (reason := self.objection()) is not None:
            again = max([AGAIN, *(keeper.took_s for keeper in self._keepers)])
            raise NotReady(reason, None if self._closing else again)
        if asked.model not in self.models:
            known = ", ".join(sorted(self.models))
            raise ValueError(f"no model is named {asked.model!r}; choose {known}")
        checks.number("priority", asked.priority)
        checks.whole("preview", asked.preview, 0, "rows between two previews, or 0")
        if asked.deadline is not None and checks.number("deadline", asked.deadline) <= 0:
            raise ValueError(f"deadline={asked.deadline:g} lies in the past; give seconds from now")
        if asked.id in self._here or any(keeper.has(asked.id) for keeper in self._keepers):
            raise ValueError(f"a request of the id {asked.id!r} is here already; give another id")
        self._quarantine.check(asked)
        if len(self._here) >= self._max_queue:
            raise Full(
                f"{len(self._here)} requests wait or run, and at most {self._max_queue} may; try again when "
                "some have ended",
                AGAIN,
            )

    def _got(self, keeper: Keeper, message: Any) -> None:
        match message:
            case Taken(name, rows, cost):
                self._taken(keeper, name, rows, cost)
            case Done(name, made):
                if (request := keeper.over(name)) is not None and not request.ended:
                    request.done(made)
                self._dispatch.pump()
            case Ended(name, fault):
                if (request := keeper.over(name)) is not None:
                    request.fail(fault.error())
                self._dispatch.pump()
            case Heard(name, told):
                if (request := keeper.running.get(name)) is not None and not request.ended:
                    request.heard(told)
            case Chose(choices):
                for kept, found in choices.items():  # who chose first is followed by all
                    self._choices[kept] = found | self._choices.get(kept, {})

    def _taken(self, keeper: Keeper, name: str, rows: int, cost: int) -> None:
        """A worker found that a request suits."""
        looked = keeper.checking.pop(name, None)
        request = looked or keeper.running.get(name)
        if request is None or request.ended:
            return
        request.looked(rows, cost)
        if looked is not None:
            request.keeper = None
            self._dispatch.looked(request)

    def _ready(self, keeper: Keeper) -> None:
        self._dispatch.pump()

    def _lost(self, keeper: Keeper, end: End) -> None:
        if keeper.state != "failed":
            self._restarts[end.kind] += 1
        self._dispatch.lost(keeper)
        if all(one.state == "failed" for one in self._keepers):
            self._dispatch.end(f"no worker starts any more: {end.reason}")
            if self._failed is not None and not self._failed.done():
                self._failed.set_result(f"no worker starts any more: {end.reason}")

    def _read(self, request: Request) -> None:
        if request.keeper is not None:
            request.keeper.watch(request)

    def _cancelled(self, request: Request, reason: str) -> None:
        if request.keeper is not None:
            request.keeper.cancel(request, reason)

    def _over(self, request: Request) -> None:
        """A request has ended."""
        self._here.pop(request.id, None)
        if (timer := self._timers.pop(request.id, None)) is not None:
            timer.cancel()
        self._finished[request.status] += 1
        self._dispatch.leave(request)
        if not self._here and self._emptied is not None:
            self._emptied.set()

    async def _end(self) -> None:
        await asyncio.gather(*(keeper.close() for keeper in self._keepers))
