"""Runs a server: until a signal it answers, then it drains and ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from ..workers.errors import ServiceError
from ..workers.service import Service
from .app import make_app
from .front import Front
from .guard import TARGET
from .listen import Unable, address, listening
from .protocol import protocol_of
from .settings import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LEAVE = 5.0  # seconds for answers that are on their way when the service has ended
TICK = 0.02  # seconds between looks at what is left

log = logging.getLogger("diffusion_engine.server")


class Server(uvicorn.Server):
    """uvicorn's, which leaves signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(service: Service, settings: Settings, tell: Callable[[dict[str, Any]], None]) -> int:
    """Answers until SIGTERM or SIGINT.

    tell  is given the address and pid when requests are taken
    Returns 0 where all that was accepted has ended, 1 where some was given up. Raises Unable where the server
    cannot start, and where the service will never take requests again.
    """
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # each bad request is a warning there
    listener = listening(settings)
    try:
        return asyncio.run(_serve(service, settings, listener, tell))
    finally:
        for number in SIGNALS:  # the loop has gone, and with it what it did on them
            signal.signal(number, signal.SIG_IGN)
        listener.close()
        if settings.uds is not None:
            settings.uds.unlink(missing_ok=True)


async def _serve(
    service: Service,
    settings: Settings,
    listener: socket.socket,
    tell: Callable[[dict[str, Any]], None],
) -> int:
    about = {"address": address(listener), "pid": os.getpid()}
    app = make_app(service, settings)
    server = Server(config_of(app, settings))
    signals = Signals()
    # It answers while models are loaded: that it lives, and that it is not ready.
    answering = asyncio.create_task(server.serve([listener]))
    starting = asyncio.create_task(service.start())
    clean, lost = True, None
    try:
        await _first(starting, signals.wait(1), answering)
        if starting.done():
            starting.result()
            tell(about | {"models": list(service.models)})
            lost = asyncio.create_task(service.lost())
            await _first(signals.wait(1), answering, lost)
            if lost.done():
                raise Unable(f"the server ends, for whoever starts it again: {lost.result()}")
            app.state.front.ending = "the server ends"
            clean = await _drained(app.state.front, settings.drain, signals)
    except ServiceError as error:
        raise Unable(str(error)) from None
    finally:
        begun = [task for task in (starting, lost) if task is not None]
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        await service.close(0.0)
        server.should_exit, server.force_exit = True, signals.count > 1
        await asyncio.gather(answering, return_exceptions=True)
    return 0 if clean else 1


def config_of(app: Any, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs the app: one process, h11, no websockets, nothing of a proxy believed."""
    return uvicorn.Config(
        app, http=protocol_of(settings), ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, timeout_keep_alive=round(settings.keep_alive),
        h11_max_incomplete_event_size=settings.max_header + TARGET, timeout_graceful_shutdown=round(LEAVE),
    )  # fmt: skip


class Signals:
    """Those that end the server, counted: the first asks it to, the second does not wait."""

    def __init__(self) -> None:
        self.count = 0
        self._came = asyncio.Condition()
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on)
        self._tasks: set[asyncio.Task[None]] = set()

    def _on(self) -> None:
        self.count += 1
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._came:
            self._came.notify_all()

    async def wait(self, count: int) -> None:
        """Until so many came."""
        async with self._came:
            await self._came.wait_for(lambda: self.count >= count)


async def _first(*waited: Any) -> None:
    """Until one of them is done."""
    tasks = [asyncio.ensure_future(one) for one in waited]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, one in zip(tasks, waited, strict=True):
        if task is not one:  # made here
            task.cancel()


async def _drained(front: Front, seconds: float, signals: Signals) -> bool:
    """Whether all that was accepted ended in time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (front.requests.open or front.taking) and signals.count < 2:
                await asyncio.sleep(TICK)
    left = len(front.requests.open) + front.taking
    if left:
        log.warning("the server ends with %d requests that are not done", left)
    return not left


def announce(path: Path, about: dict[str, Any]) -> None:
    """Writes where the server is reached into a file, which appears whole. Raises Unable."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(about))
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise Unable(
            f"{path} cannot be written ({error.strerror}); name another by --ready-file"
        ) from None
