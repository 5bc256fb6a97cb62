"""The main of a worker process: an InProcess service whose requests come over a socket.

Started by process.py as `python -m diffusion_engine.workers.worker SOCKET PARENT`. It ends with its parent,
and leaves SIGINT and SIGTERM, which a terminal and a service manager send to the whole group, to that.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import torch

from .. import choices
from ..engine.ticket import Ticket
from ..models import network_of
from ..networks.placement import named_dtype
from .errors import Fault, ServiceError
from .frames import Connection
from .inprocess import InProcess
from .messages import Asked
from .pulse import Pulse
from .serving import Device
from .serving import Run as Running
from .wire import (
    Begin,
    Broken,
    Cancel,
    Check,
    Chose,
    Done,
    Ended,
    Heard,
    Ready,
    Run,
    Taken,
    ToWorker,
    Unfit,
    Watch,
)

PR_SET_PDEATHSIG = 1
SWITCH = 0.0005  # seconds: of what comes, a row that computes in Python is told after so long
BROKEN = 70  # exit code

log = logging.getLogger(__name__)


class Worker:
    """What it does with the messages of its server.

    beats  the socket of the signs of life
    """

    def __init__(self, beats: socket.socket) -> None:
        self._beats = beats
        self.link = Connection(ToWorker, self._got, self._lost)
        self._service: InProcess | None = None
        self._running: dict[str, Running] = {}
        self._watched: set[str] = set()
        self._coming: dict[str, str | None] = {}  # not taken yet, and why they are given up
        self._known: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.get_running_loop().create_future()

    def _got(self, message: ToWorker) -> None:
        match message:
            case Run(asked, watched):
                self._coming[asked.id] = None
                self._start(self._run(asked, watched))
            case Check(asked):
                self._start(self._check(asked))
            case Watch(name):
                self._watch(name)
            case Cancel(name, reason):
                if (running := self._running.get(name)) is not None:
                    running.cancel(reason)
                elif name in self._coming:
                    self._coming[name] = reason
            case Begin():
                self._start(self._begin(message))

    def _lost(self, reason: str) -> None:
        os._exit(0)  # a row that runs holds nobody up

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the worker broke down", exc_info=error)
            self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(BROKEN)

    async def _begin(self, begin: Begin) -> None:
        choices.share(begin.choices)
        pulse = Pulse(
            self._beats, self._snapshot, self._statuses, begin.beat_s, begin.hang_s, begin.longer_s
        )
        pulse.start()
        try:
            service = await asyncio.to_thread(_service, begin)
            await service.start()
        except (ServiceError, ValueError) as error:
            self.link.send(Unfit(str(error)))
            return
        self._service = service
        self._choose()
        self.link.send(Ready(list(service.models.values())))

    async def _check(self, asked: Asked) -> None:
        assert self._service is not None
        try:
            self._take(asked, await self._service.check(asked))
        except Exception as error:
            self._fail(asked.id, error)

    def _take(self, asked: Asked, ticket: Ticket) -> None:
        self.link.send(Taken(asked.id, ticket.handle.rows, ticket.work))

    async def _run(self, asked: Asked, watched: bool) -> None:
        assert self._service is not None
        try:
            ticket = await self._service.check(asked)
            self._take(asked, ticket)  # before the engine's thread has something to do
            watched |= asked.id in self._watched
            running = self._running[asked.id] = self._service.put(asked, ticket, watched)
            if (reason := self._coming.pop(asked.id)) is not None:
                running.cancel(reason)
            if watched:
                self._watched.add(asked.id)
                self._start(self._tell(asked.id, running))
            made = await running.result()
            self._choose()
            self.link.send(Done(asked.id, made))
        except Exception as error:
            self._fail(asked.id, error)
        finally:
            self._running.pop(asked.id, None)
            self._watched.discard(asked.id)
            self._coming.pop(asked.id, None)

    def _choose(self) -> None:
        """Says what is gone by, where that has changed."""
        if (known := choices.shared()) != self._known:
            self._known = known
            self.link.send(Chose(known))

    def _fail(self, name: str, error: Exception) -> None:
        """Says why a request ends; where none does well any more, the process goes."""
        assert self._service is not None
        broken = self._service.objection()
        if isinstance(error, Device) or broken is not None:
            self.link.send(Broken(broken or str(error)))
            self._end()
        else:
            self.link.send(Ended(name, Fault.of(error)))

    def _watch(self, name: str) -> None:
        running = self._running.get(name)
        if name in self._watched or (running is None and name not in self._coming):
            return
        self._watched.add(name)
        if running is not None:
            self._start(self._tell(name, running))

    async def _tell(self, name: str, running: Running) -> None:
        async for told in running.events():
            if told.kind in ("started", "row", "preview"):
                self.link.send(Heard(name, told))
                await self.link.drained()

    def _snapshot(self) -> dict[str, Any] | None:
        return None if self._service is None else self._service.engine.snapshot()

    def _statuses(self) -> dict[str, str]:
        return {name: running.status for name, running in list(self._running.items())}


def _service(begin: Begin) -> InProcess:
    """Loads the models. Raises ValueError where one is not to be had."""
    if begin.memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (begin.memory, begin.memory))
    options = dict(begin.options)
    options["dtype"] = named_dtype(options.get("dtype"))
    device = torch.device(options.get("device") or "cpu")
    networks = {name: network_of(text, device=device) for name, text in begin.models.items()}
    return InProcess(networks, **options)


def follow_parent(parent: int) -> None:
    """Ends this process with its parent, where the system has a way to."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before that
        os._exit(0)


def connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    return sock


async def serve(path: str) -> int:
    """Answers until the server goes, or it can answer no more; the exit code."""
    messages, beats = connected(path), connected(path)
    messages.setblocking(False)
    worker = Worker(beats)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: worker.link, sock=messages)
    code: int = await worker.ended
    await worker.link.drained()
    return code


def main() -> None:
    path, parent = sys.argv[1:]
    follow_parent(int(parent))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH)
    logging.basicConfig(format=f"worker {os.getpid()}: %(message)s")
    code = asyncio.run(serve(path))
    sys.stderr.flush()
    os._exit(code)  # no thread of a network is waited for


if __name__ == "__main__":
    main()
