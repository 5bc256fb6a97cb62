"""How httpx is set up for a server, and what its errors are called here."""

from __future__ import annotations

from typing import Any

import httpx

from .. import checks
from .errors import Lost, Silent
from .messages import Ask

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
CONNECT = 10.0  # seconds


def options(base_url: str, key: str | None, timeout: float | None) -> dict[str, Any]:
    """The keywords of an httpx client but for its transport. Raises ValueError where they make no sense."""
    if not str(base_url).startswith(("http://", "https://")):
        raise ValueError(
            f"base_url={checks.said(base_url)}: give one like http://127.0.0.1:8000, or uds=path"
        )
    if timeout is not None and checks.number("timeout", timeout) <= 0:
        raise ValueError(f"timeout={timeout:g}: give seconds, more than 0, or None")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    connect = CONNECT if timeout is None else min(CONNECT, timeout)
    return {
        "base_url": base_url,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=connect),
        "trust_env": False,  # a proxy of the environment is none for a server of one's own
    }


def request(ask: Ask) -> dict[str, Any]:
    """The keywords of httpx's build_request."""
    return {
        "method": ask.method, "url": ask.path, "json": ask.body, "headers": {"accept": ask.accept},
    }  # fmt: skip


def lost(error: httpx.TransportError) -> Lost:
    """What became of the connection, in a sentence."""
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, UNSENT):
        return Silent("the server said nothing for longer than `timeout`", unsent=False)
    how = "cannot be reached" if isinstance(error, UNSENT) else "ended the connection"
    return Lost(f"the server {how} ({error or type(error).__name__})", isinstance(error, UNSENT))
