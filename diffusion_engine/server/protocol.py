"""HTTP/1.1 with limits of time: uvicorn's protocol on h11, whose buffers have a size."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .refused import JSON, Refused
from .settings import Settings

# Seconds of silence, seconds between probes and their number after which a vanished client is gone.
PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
WORDS = {408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


def protocol_of(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol of a server's connections."""

    class Protocol(Timed):
        limits = settings

    return Protocol


class Timed(H11Protocol):
    """A connection, which ends where its client sends a head too slowly or reads nothing."""

    limits: Settings

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self.limits.max_connections:
            transport.abort()
            return
        super().connection_made(transport)
        _probe(transport.get_extra_info("socket"))
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:
            return
        self._stop()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._head is None and not self.transport.is_closing():
            self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._forsake()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._forsake()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in the shape of all errors, where an answer can begin."""
        error = sys.exc_info()[1]
        large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        status = 431 if large else 400
        self._refuse(Refused(status, "this is no request of HTTP/1.1", "http"))

    def _expect(self) -> None:
        """From now on the head of a request may take so long."""
        self._head = self.loop.call_later(self.limits.header_timeout, self._late)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _late(self) -> None:
        seconds = self.limits.header_timeout
        self._refuse(Refused(408, f"the head of the request took more than {seconds:g} s", "slow"))

    def _refuse(self, error: Refused) -> None:
        self._stop()
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = error.answer()
            head = [(b"content-type", JSON.encode()), (b"connection", b"close")]
            head.append((b"content-length", str(len(answer.body)).encode()))
            for event in (
                h11.Response(
                    status_code=error.status,
                    headers=head,
                    reason=WORDS.get(error.status, b"Bad Request"),
                ),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            # The app, which works at an answer still, has nobody to give it to.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._forsake()

    def _forsake(self) -> None:
        """A connection that is closed ends though its client reads nothing."""
        self.loop.call_later(self.limits.write_timeout, self.transport.abort)


def _probe(connection: socket.socket | None) -> None:
    if connection is None or connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
