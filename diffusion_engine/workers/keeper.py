"""`Keeper`: a device's worker process, which is started again where it ends or hangs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from .errors import ServiceError
from .messages import About
from .process import Lost, Process
from .request import Request
from .wire import Beat, Begin, Broken, Cancel, Check, Run, Watch

SILENT = 2.0  # seconds without a sign of life of one that was stopped
DUMB = 20.0  # of one that is not: a busy machine may be slow to let it speak
SOON = 5.0  # seconds: one that ends within them, with nothing to do, would do so again
# Seconds before a start that follows a failed one: twice as long each time, and the longest.
BACKOFF, LONGEST = 0.5, 30.0
TRIES = 20  # starts that fail one after another

log = logging.getLogger(__name__)


class End(NamedTuple):
    """Why a worker is gone.

    kind    exited, hung, stopped, silent or broken
    reason  a sentence's end
    """

    kind: str
    reason: str


class Keeper:
    """One device.

    device    its name
    capacity  samples of a batch
    begin     what a worker is told at its start
    ready, lost, got  called with the keeper: a worker takes requests; one is gone, with the End; a message
    start_s   seconds that a start may take
    """

    def __init__(
        self,
        device: str,
        capacity: int,
        begin: Callable[[str], Begin],
        ready: Callable[[Keeper], None],
        lost: Callable[[Keeper, End], None],
        got: Callable[[Keeper, Any], None],
        start_s: float,
    ) -> None:
        self.device, self._capacity, self._start_s = device, capacity, start_s
        self._begin, self._told, self._lost, self._got = begin, ready, lost, got
        self.state, self.reason = "starting", "it starts"
        self.models: list[About] = []
        self.running: dict[str, Request] = {}
        self.checking: dict[str, Request] = {}
        self.alone = False  # whether a request is there that nobody may share a worker with
        self.took_s = 0.0  # the last start
        self.beat: Beat | None = None
        self._process: Process | None = None
        self._gone: asyncio.Future[End] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.ready and self._process is not None else None

    @property
    def cost(self) -> int:
        """Of what is there; of what nobody has looked at, a part."""
        return sum(max(one.cost, one.samples) for one in self.running.values())

    def has(self, name: str) -> bool:
        """Whether a request of that id is there, or was given up and is not left yet."""
        return name in self.running or name in self.checking

    def room(self, request: Request) -> bool:
        """Whether a request may come: beside what is there, of which a large one counts as one batch."""
        if not self.ready or self.alone:
            return False
        here = self.running.values()
        load = sum(min(one.samples, self._capacity) for one in here)
        return load < 2 * self._capacity or all(one.key != request.key for one in here)

    async def start(self) -> None:
        """Starts the first worker, and keeps one from then on. Raises ServiceError where it cannot."""
        process = await self._started()
        self._task = asyncio.create_task(self._keep(process))
        self._task.add_done_callback(self._left)

    async def close(self) -> None:
        """Ends the worker, for good."""
        self.state, self.reason = "closed", "the service ends"
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None:
            await self._process.end()

    def run(self, request: Request) -> None:
        """Sends a request, to be run."""
        self.running[request.id] = request
        request.keeper = self
        self._send(Run(request.left(), request.read))

    def check(self, request: Request) -> None:
        """Sends a request, to be looked at."""
        self.checking[request.id] = request
        request.keeper = self
        self._send(Check(request.asked))

    def watch(self, request: Request) -> None:
        self._send(Watch(request.id))

    def cancel(self, request: Request, reason: str) -> None:
        self._send(Cancel(request.id, reason))

    def over(self, name: str) -> Request | None:
        """The worker has done with a request."""
        request = self.running.pop(name, None)
        if not self.running:
            self.alone = False
        return request or self.checking.pop(name, None)

    def snapshot(self) -> dict[str, Any]:
        """What its worker does, as JSON-able values."""
        return {
            "device": self.device,
            "state": self.state,
            "reason": self.reason,
            "process": self.pid,
            "requests": len(self.running) + len(self.checking),
            "start_s": self.took_s,
            "engine": self.beat.engine if self.beat is not None else {},
        }

    def take(self) -> list[Request]:
        """All requests that were there."""
        taken = [*self.running.values(), *self.checking.values()]
        self.running, self.checking, self.alone = {}, {}, False
        return taken

    def _send(self, message: Any) -> None:
        assert self._process is not None
        self._process.send(message)

    async def _started(self) -> Process:
        """A worker that is ready. Raises ServiceError where none is to be had."""
        loop = asyncio.get_running_loop()
        self.beat, self._gone = None, loop.create_future()
        began = loop.time()
        process = self._process = Process(self._heard, self._beaten, self._ended)
        try:
            self.models = await process.start(self._begin(self.device), self._start_s)
        except BaseException as error:
            await process.end()
            if isinstance(error, (Lost, OSError)):
                raise ServiceError(f"a worker does not start: {error}") from error
            raise
        self.took_s = loop.time() - began
        self.state, self.reason = "ready", ""
        return process

    async def _keep(self, process: Process) -> None:
        loop, short = asyncio.get_running_loop(), 0
        while True:
            self._told(self)
            began = loop.time()
            end = await self._watched(process)
            idle = not (self.running or self.checking)
            self.state, self.reason = "restarting", f"a worker {end.reason} and is replaced"
            said = f"the worker of {self.device}, process {process.pid}, {end.reason}"
            log.error("%s; it is replaced", said)
            await process.end()
            self._lost(self, end)
            short = short + 1 if idle and loop.time() - began < SOON else 0
            if short > 1:
                await asyncio.sleep(_pause(short))
            again = await self._again()
            if again is None:
                return
            process = again

    def _left(self, task: asyncio.Task[None]) -> None:
        """Nobody keeps it any more; by an error of its own, where there is one."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the worker of %s is kept no more", self.device, exc_info=error)
            self.state, self.reason = "failed", "its keeper broke down"
            self._lost(self, End("failed", self.reason))

    async def _again(self) -> Process | None:
        """The next worker; None where no start succeeds."""
        for turn in range(TRIES):
            try:
                return await self._started()
            except ServiceError as error:
                self.reason = "a worker does not start again"
                log.error("the worker of %s: %s", self.device, error)
                await asyncio.sleep(_pause(turn))
        self.state = "failed"
        self._lost(self, End("failed", self.reason))
        return None

    async def _watched(self, process: Process) -> End:
        """Returns when the worker is gone, or has to go."""
        assert self._gone is not None
        clock = asyncio.get_running_loop().time
        every = self._begin(self.device).beat_s
        fair = before = clock()
        while True:
            await asyncio.wait([self._gone], timeout=every)
            if self._gone.done():
                return self._gone.result()
            now = clock()
            if (
                now - before > 2 * every + 0.5
            ):  # this process did not run itself: what was sent is unread
                fair = now
            before = now
            silent, beat = now - max(process.heard, fair), self.beat
            if silent > SILENT and process.stopped:
                return End("stopped", f"was stopped {silent:.1f} s ago")
            if silent > DUMB:
                return End("silent", f"gave no sign of life for {silent:.0f} s")
            if beat is not None and beat.still_s > beat.limit_s:
                return End("hung", f"made no step for {beat.still_s:.1f} s")

    def _heard(self, message: Any) -> None:
        if isinstance(message, Broken):
            log.error("the worker of %s: %s", self.device, message.reason)
            self._go(End("broken", "can do nothing more"))
        else:
            self._got(self, message)

    def _beaten(self, beat: Beat) -> None:
        self.beat = beat
        for name in beat.started:
            if (request := self.running.get(name)) is not None:
                request.started()

    def _ended(self, reason: str) -> None:
        self._go(End("exited", f"ended ({reason})"))

    def _go(self, end: End) -> None:
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(end)


def _pause(turn: int) -> float:
    """Seconds before the next start."""
    return min(LONGEST, BACKOFF * 2 ** min(turn, 10))  # of which a float has no thousandth power
