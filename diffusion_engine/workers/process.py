"""`Process`: the parent's side of one worker process, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from .errors import ServiceError
from .frames import Connection, Limits
from .messages import About
from .wire import Beat, Begin, Ready, ToServer, Unfit

PATH = 100  # bytes of a socket's path: the system takes 107
LOOK = 0.05  # seconds between two looks at a process that starts
WAIT = 10.0  # seconds that a killed process may take to end
MODULE = "diffusion_engine.workers.worker"


class Lost(RuntimeError):
    """The process has ended, or says that it can do nothing."""


class Process:
    """A worker process, which ends with this one.

    got   called with its messages, once it is ready
    beat  called with its signs of life
    lost  called once, with why it is gone
    """

    def __init__(
        self,
        got: Callable[[Any], None],
        beat: Callable[[Beat], None],
        lost: Callable[[str], None],
        limits: Limits | None = None,
    ) -> None:
        self._told, self._lost = got, lost
        self.link = Connection(ToServer, self._got, self._ended, *([limits] if limits else []))
        self.beats = Connection(Beat, beat, self._ended)
        self._popen: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[list[About]] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    async def start(self, begin: Begin, seconds: float) -> list[About]:
        """Returns when it is ready, what it serves. Raises ServiceError where that cannot be, Lost where it
        ended; it has to be ended by `end` then.

        seconds  that this may take
        """
        try:
            async with asyncio.timeout(seconds):
                with _listening() as (listener, path):
                    # By this thread: where the one that starts a process ends, Linux ends the process.
                    self._popen = subprocess.Popen(
                        [sys.executable, "-m", MODULE, path, str(os.getpid())],
                        stdin=subprocess.DEVNULL,
                        env={"OMP_WAIT_POLICY": "passive"} | os.environ,
                    )
                    for link in (self.link, self.beats):
                        await self._accepted(listener, link)
                self.link.send(begin)
                return await self._ready
        except TimeoutError:
            raise Lost(f"it was not ready after {seconds:g} s") from None

    async def _accepted(self, listener: socket.socket, link: Connection) -> None:
        """A connection of the process, and of no other."""
        assert self._popen is not None
        loop = asyncio.get_running_loop()
        while True:
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            try:
                while not accepting.done():
                    await asyncio.wait([accepting], timeout=LOOK)
                    if not accepting.done() and (code := self._popen.poll()) is not None:
                        raise Lost(f"it ended at its start, {said(code)}")
            finally:
                accepting.cancel()
            sock, _ = accepting.result()
            if _peer(sock) in (None, self._popen.pid):
                await loop.create_unix_connection(lambda: link, sock=sock)
                return
            sock.close()

    def _got(self, message: Any) -> None:
        if self._ready.done():
            self._told(message)
            return
        match message:
            case Ready(models):
                self._ready.set_result(models)
            case Unfit(reason):
                self._ready.set_exception(ServiceError(reason))
            case _:
                self._told(message)

    def _ended(self, reason: str) -> None:
        """One of the connections ended."""
        if not self._ready.done():
            self._ready.set_exception(Lost(self._reason(reason)))
        elif self._popen is not None:
            self._lost(self._reason(reason))

    def _reason(self, reason: str) -> str:
        assert self._popen is not None
        with suppress(subprocess.TimeoutExpired):
            return said(self._popen.wait(LOOK))
        return reason

    def send(self, message: msgspec.Struct) -> None:
        self.link.send(message)

    @property
    def heard(self) -> float:
        """When something came of it last, on the loop's clock."""
        return max(self.link.heard, self.beats.heard)

    @property
    def stopped(self) -> bool:
        """Whether it was stopped, as SIGSTOP and debuggers do; False where the system does not say."""
        with suppress(OSError, IndexError):
            text = Path(f"/proc/{self.pid}/stat").read_text()
            return text.rpartition(")")[2].split()[0] in "Tt"
        return False

    async def end(self) -> None:
        """Kills it, where it has not ended, and waits for that."""
        popen, self._popen = self._popen, None
        self.link.close()
        self.beats.close()
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()
        if popen is not None:
            popen.kill()
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(popen.wait, WAIT)


def said(code: int) -> str:
    """How a process ended, by its exit code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


@contextmanager
def _listening() -> Iterator[tuple[socket.socket, str]]:
    """A socket that listens in a folder of its own, where nobody else may enter, and its path; both are gone
    afterwards."""
    # Not tempfile.gettempdir(), which writes a file to see whether it can: a disk may be full.
    folder = _folder((os.environ.get("TMPDIR") or "/tmp", "/tmp"))
    try:
        path = os.path.join(folder, "s")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(2)
            listener.setblocking(False)
            yield listener, path
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(places: Sequence[str]) -> str:
    """A new folder, mode 0700, in the first place whose path a socket's may have."""
    for place in places:
        if len(os.fsencode(place)) < PATH - len("/diffusion-engine-12345678/s"):
            return tempfile.mkdtemp(prefix="diffusion-engine-", dir=place)
    raise ServiceError(
        f"the path of {places[0]} is too long for a socket; set TMPDIR to a shorter one"
    )


def _peer(sock: socket.socket) -> int | None:
    """The process at the other end; None where the system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    made = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", made)[0])
