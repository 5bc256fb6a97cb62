"""Frames: one message each on a stream, a msgpack head and the raw bytes of its tensors behind it.

    4 bytes   length of the head, little-endian as all here
    8 bytes   length of the tensors
    head      the message in msgpack, each tensor in it as [dtype, shape]
    tensors   their elements, one tensor after another in the order of the head

All lengths are held against limits before memory is taken for them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

PREFIX = struct.Struct("<IQ")
DTYPES = ("float32", "float16", "float64", "int64", "int32", "uint8", "bool")
AXES = 8
JOINED = 1 << 16  # bytes of a frame that are written as one

log = logging.getLogger(__name__)


class BadFrame(ValueError):
    """Bytes that are no frame, or one beyond the limits."""


@dataclass(frozen=True)
class Limits:
    """Of one frame, in bytes: its head's, and all its tensors'."""

    head: int = 8 << 20
    tensors: int = 4 << 30


LIMITS = Limits()


def parts(message: msgspec.Struct) -> list[bytes | memoryview]:
    """A message as what is written of it, one after another. Raises ValueError where a tensor's dtype has no
    place in a frame."""
    tensors: list[np.ndarray] = []

    def hook(value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            raise NotImplementedError(f"a {type(value).__name__} has no place in a frame")
        if value.dtype.name not in DTYPES:
            raise ValueError(
                f"a tensor of {value.dtype} has no place in a frame; make it one of {', '.join(DTYPES)}"
            )
        tensors.append(value)
        return [value.dtype.name, list(value.shape)]

    head = msgspec.msgpack.encode(message, enc_hook=hook)
    raw = [tensor.reshape(-1).data.cast("B") for tensor in tensors if tensor.size]
    return [PREFIX.pack(len(head), sum(part.nbytes for part in raw)) + head, *raw]


class Reader:
    """The messages of a stream, as its bytes come.

    kind    a Struct, or a union of tagged ones: what the messages may be
    limits  of each frame
    """

    def __init__(self, kind: Any, limits: Limits = LIMITS) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind, dec_hook=self._tensor)
        self._limits = limits
        self._rest = bytearray()  # of a prefix or a head, or what comes after a whole frame
        self._lengths: tuple[int, int] | None = None
        self._message: Any = None
        self._tensors: list[memoryview] = []  # still to be filled
        self._free = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Any]:
        """The messages that are whole with these bytes, to be read to the end. Raises BadFrame; what comes
        after it is not read."""
        view = memoryview(data)
        while True:
            if self._tensors:
                view = view[self._fill(view) :]
                if self._tensors:
                    return
                yield self._done()
            elif self._message is not None:
                yield self._done()
            elif (head := self._head()) is not None:
                self._open(head)
            elif len(view):
                wanted = self._wanted()
                self._rest += view[:wanted]
                view = view[wanted:]
            else:
                return

    def _wanted(self) -> int:
        whole = PREFIX.size if self._lengths is None else self._lengths[0]
        return whole - len(self._rest)

    def _head(self) -> bytearray | None:
        """The head, where it is whole."""
        if self._lengths is None and len(self._rest) == PREFIX.size:
            head, tensors = PREFIX.unpack(self._rest)
            for name, length in (("head", head), ("tensors", tensors)):
                if length > (most := getattr(self._limits, name)):
                    raise BadFrame(f"a frame's {name} of {length} bytes: at most {most} are read")
            self._lengths, self._rest = (head, tensors), bytearray()
        if self._lengths is None or len(self._rest) < self._lengths[0]:
            return None
        head, self._rest = self._rest, bytearray()
        return head

    def _open(self, head: bytearray) -> None:
        """Reads a head, and makes the tensors that it names."""
        assert self._lengths is not None
        self._free, self._tensors = self._lengths[1], []
        try:
            self._message = self._decoder.decode(head)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise BadFrame(f"a frame's head is no message: {error}") from error
        if self._free:
            raise BadFrame(f"a frame brings {self._free} bytes of tensors that its head names not")
        self._tensors.reverse()

    def _tensor(self, kind: type, given: Any) -> np.ndarray:
        """Of the decoder: a tensor as the head names it, whose bytes follow."""
        try:
            dtype, shape = given
            fits = dtype in DTYPES and len(shape) <= AXES
            fits = fits and all(type(n) is int and n >= 0 for n in shape)
        except (TypeError, ValueError):
            fits = False
        if kind is not np.ndarray or not fits:
            raise ValueError(f"{str(given)[:60]} is no tensor: [dtype, shape] are wanted")
        size = np.dtype(dtype).itemsize
        # An axis of 0 lets the others be anything: no array of them can be made.
        if size * math.prod(max(n, 1) for n in shape) > self._limits.tensors:
            raise ValueError(f"a tensor of shape {shape} is larger than a frame may be")
        if (taken := size * math.prod(shape)) > self._free:
            raise ValueError(f"a tensor of shape {shape} does not fit into the frame")
        self._free -= taken
        made = np.empty(shape, dtype)
        if taken:
            self._tensors.append(made.reshape(-1).data.cast("B"))
        return made

    def _fill(self, view: memoryview) -> int:
        """Copies what is there into the tensors; the bytes that were taken."""
        used = 0
        while self._tensors and used < len(view):
            room = self._tensors[-1]
            count = min(len(room), len(view) - used)
            room[:count] = view[used : used + count]
            used += count
            self._tensors.pop()
            if count < len(room):
                self._tensors.append(room[count:])
        return used

    def _done(self) -> Any:
        message, self._message, self._lengths = self._message, None, None
        return message


class Connection(asyncio.Protocol):
    """One end of a socket on which messages go both ways.

    kind  what comes
    got   called with each message
    lost  called once with why nothing more comes, a sentence
    """

    def __init__(
        self,
        kind: Any,
        got: Callable[[Any], None],
        lost: Callable[[str], None],
        limits: Limits = LIMITS,
    ) -> None:
        self._reader = Reader(kind, limits)
        self._got, self._lost = got, lost
        self._transport: asyncio.Transport | None = None
        self._reason = "the other end is gone"
        self._free: asyncio.Event | None = None
        self.heard = 0.0  # when something came last, on the loop's clock

    def connection_made(self, transport: Any) -> None:
        self._transport, self._free = transport, asyncio.Event()
        self._free.set()
        self.heard = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        try:
            for message in self._reader.feed(data):
                self._got(message)
        except BadFrame as error:
            log.error("%s; the connection is closed", error)
            self._reason = str(error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        self._lost(self._reason)

    def send(self, message: msgspec.Struct) -> None:
        """Writes a message; where the other end is gone nothing happens. Raises ValueError as `parts`."""
        written = parts(message)
        if self._transport is None or self._transport.is_closing():
            return
        if sum(map(len, written)) <= JOINED:
            written = [b"".join(written)]
        for part in written:
            self._transport.write(part)

    def pause_writing(self) -> None:
        assert self._free is not None
        self._free.clear()

    def resume_writing(self) -> None:
        assert self._free is not None
        self._free.set()

    async def drained(self) -> None:
        """Returns when the other end has read enough for more to be written."""
        if self._transport is not None and self._free is not None:
            await self._free.wait()

    def close(self) -> None:
        """Ends it now; what was not written yet is lost."""
        if self._transport is not None:
            self._transport.abort()
