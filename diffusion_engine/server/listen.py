"""The socket that a server listens on."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .settings import Settings

BACKLOG = 1024


class Unable(RuntimeError):
    """Why a server does not start, in a sentence."""


def listening(settings: Settings) -> socket.socket:
    """A socket that listens, so that no other server can. Raises Unable."""
    if settings.uds is not None:
        return _unix(settings.uds)
    host, port = settings.host, settings.port
    try:
        family, kind, number, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, number)
    except OSError as error:
        raise Unable(f"host {host!r} is no address of this machine ({error.strerror})") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise Unable(
            f"port {port} of {host} cannot be had ({error.strerror}); end who has it, or choose by --port"
        ) from None
    return made


def address(listener: socket.socket) -> str:
    """Where it is reached."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _unix(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone(path.parent):
            _clear(path)
            # The mode that it is made with: a chmod would come after somebody connected.
            mask = os.umask(0o177)
            try:
                made.bind(str(path))
            finally:
                os.umask(mask)
            made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise Unable(f"no socket can be made at {path} ({error.strerror or error})") from None
    except Unable:
        made.close()
        raise
    return made


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other server looks at the folder's sockets at the same time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _clear(path: Path) -> None:
    """Removes a socket that nobody listens on."""
    if not path.exists():
        return
    if not path.is_socket():
        raise Unable(f"{path} is no socket, and stays; name another by --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
        else:
            raise Unable(f"a server listens on {path} already; end it, or name another by --uds")
