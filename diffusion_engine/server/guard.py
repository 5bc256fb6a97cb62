"""`Guard`: what every request meets first: its id, the limits of its head and body, the key."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .counts import Counts
from .front import Front
from .refused import Refused
from .settings import Settings

OPEN = ("/livez", "/readyz", "/health")  # ask for no key
PAGE = "/page/"
LOCAL = ("localhost", "127.0.0.1", "[::1]")
FIELDS, TARGET = 64, 4096  # header fields, bytes of a path with its query
METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
SAFE = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]

BROKEN = Refused(500, "something broke here; the log knows more", "internal", kind="server_error")

log = logging.getLogger("diffusion_engine.server")


class Guard:
    """Middleware around the whole app.

    An answer holds x-request-id, which is also the id of the request that it made.
    """

    def __init__(self, app: ASGIApp, front: Front) -> None:
        self._app, self._front = app, front
        self._settings = front.settings
        self._keys = [(hashlib.sha256(key).digest(), key) for key in front.settings.secrets]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        state = scope.setdefault("state", {})
        state["id"] = secrets.token_hex(16)
        settings, named = self._settings, dict(scope["headers"])
        empty = named.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in named
        incoming = Incoming(receive, empty, settings, self._front.counts)
        outgoing = Outgoing(send, state["id"], incoming)
        counts = self._front.counts
        counts.open += 1
        try:
            self._check(scope)
            await self._app(scope, incoming.receive, outgoing.send)
        except Refused as error:
            if outgoing.status == 0:
                await error.answer()(scope, receive, outgoing.send)
        except Exception:
            log.exception("request %s", state["id"])
            if outgoing.status:
                raise
            await BROKEN.answer()(scope, receive, outgoing.send)
        finally:
            counts.open -= 1
            counts.bodies -= incoming.count
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            counts.answers[route, method, outgoing.status] += 1

    def _check(self, scope: Scope) -> None:
        """Raises Refused where the head is not answered."""
        settings, headers = self._settings, scope["headers"]
        if len(headers) > FIELDS or sum(len(k) + len(v) for k, v in headers) > settings.max_header:
            raise Refused(
                431,
                f"the head has more than {FIELDS} fields, or {settings.max_header} bytes",
                "head",
            )
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET:
            raise Refused(414, f"the path has more than {TARGET} bytes", "path")
        named = dict(headers)
        length = named.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > settings.max_body:
            raise _long(settings.max_body)
        if scope["path"] in OPEN:
            return
        if self._keys and not is_page(scope["path"]):
            self._unlock(named, scope)
        elif not self._keys and settings.uds is None:
            self._check_host(named.get(b"host", b""))
        if self._front.counts.open > settings.max_open:
            raise _busy(f"{settings.max_open} requests are answered now")

    def _unlock(self, named: Mapping[bytes, bytes], scope: Scope) -> None:
        """Notes whose key it is. A browser, which knows no Bearer, sends it as the password of Basic."""
        kind, _, given = named.get(b"authorization", b"").partition(b" ")
        given = given.strip()
        if kind.lower() == b"basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                given = b""
        elif kind.lower() != b"bearer":
            given = b""
        digest = hashlib.sha256(given).digest()
        # All are compared, so that the time says nothing of which it was.
        found = [key for known, key in self._keys if hmac.compare_digest(known, digest)]
        if not found:
            asks = 'Bearer realm="diffusion_engine"'
            # Where a script of the page asks, the page has a dialog, and Basic would open the browser's own.
            if named.get(b"sec-fetch-mode", b"navigate") == b"navigate":
                asks += ', Basic realm="diffusion_engine"'
            raise Refused(
                401, "this server asks for a key; send Authorization: Bearer KEY", "invalid_api_key",
                "authorization", headers={"www-authenticate": asks},
            )  # fmt: skip
        scope["state"]["key"] = found[0]

    def _check_host(self, host: bytes) -> None:
        """Without a key only names of this machine are answered: a page may point its own name here."""
        name = host.decode("latin-1").lower()
        name = name if name.endswith("]") else name.rpartition(":")[0] or name
        settings = self._settings
        named = {each.lower() for each in settings.hosts}
        if name not in LOCAL and name not in named and name.strip("[]") != settings.host.lower():
            raise Refused(
                421,
                f"Host is {name[:80]!r} and none of this server's; add it to hosts, or use a key",
                "host",
            )


def is_page(path: str) -> bool:
    """Whether this is the page or a file of it: the same for all, it asks for the key itself."""
    return path == "/" or path.startswith(PAGE)


def _busy(said: str) -> Refused:
    return Refused(503, said, "busy", kind="not_ready", retry_after=1)


def _long(most: int) -> Refused:
    return Refused(413, f"the body has more than {most} bytes", "too_large")


class Incoming:
    """What a client sends: counted, and in time.

    read   whether all of it is here
    count  its bytes
    """

    def __init__(self, receive: Receive, empty: bool, settings: Settings, counts: Counts) -> None:
        self._receive, self._settings, self._counts = receive, settings, counts
        self._until: float | None = None
        self.read, self.count = empty, 0

    async def receive(self) -> Message:
        if self.read:  # of an empty body, or of the connection's end
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._until is None:
            self._until = loop.time() + self._settings.body_timeout
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            seconds = self._settings.body_timeout
            raise Refused(408, f"the body took more than {seconds:g} s", "slow") from None
        if message["type"] == "http.disconnect":
            raise Refused(499, "the client hung up", "hung_up")
        size = len(message.get("body", b""))
        self.count += size
        self._counts.bodies += size
        if self.count > self._settings.max_body:
            raise _long(self._settings.max_body)
        if self._counts.bodies > self._settings.max_bodies:
            raise _busy("the bodies of all requests are too large together")
        self.read = not message.get("more_body", False)
        return message


class Outgoing:
    """What a client gets.

    status  0 until it has begun
    """

    def __init__(self, send: Send, name: str, incoming: Incoming) -> None:
        self._send, self._incoming = send, incoming
        self._more = [(b"x-request-id", name.encode()), *SAFE]
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # What was not read of a body must not be taken for another request, nor be waited for.
            close = [] if self._incoming.read else [(b"connection", b"close")]
            headers = [*message.get("headers", []), *self._more, *close]
            message = {**message, "headers": headers}
        await self._send(message)
