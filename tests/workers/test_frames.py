"""Frames: what is written is read again, however the bytes come; what is no frame is a sentence."""

import asyncio
import socket
from contextlib import suppress

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_engine.workers.errors import (
    Failed,
    Fault,
    Full,
    GivenUp,
    NotReady,
    Quarantined,
    TooLarge,
    WorkerLost,
)
from diffusion_engine.workers.frames import (
    DTYPES,
    PREFIX,
    BadFrame,
    Connection,
    Limits,
    Reader,
    parts,
)
from diffusion_engine.workers.messages import Asked, Made, Told

SMALL = Limits(head=1 << 12, tensors=1 << 16)


def written(message):
    return b"".join(parts(message))


def read(data, kind, sizes=(1 << 20,), limits=SMALL):
    """The messages of bytes that come in pieces of the sizes, in turn."""
    reader, found, at, turn = Reader(kind, limits), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += reader.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, msgspec.Struct):
        return all(same(getattr(a, f), getattr(b, f)) for f in a.__struct_fields__)
    return a == b


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 99))
    made = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
    return made.T if draw(st.booleans()) else made


@given(
    asked=st.builds(
        Asked,
        id=st.text(max_size=9),
        model=st.text(max_size=9),
        spec=st.dictionaries(
            st.text(max_size=5), st.floats(allow_nan=False) | st.none() | st.text()
        ),
        seeds=st.lists(st.integers(0, 2**64 - 1), max_size=5),
        tensors=st.dictionaries(st.text(max_size=5), arrays(), max_size=4),
    ),
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=80)
def test_what_is_written_is_read(asked, sizes):
    found = read(written(asked) * 2, Asked, sizes, Limits())
    assert len(found) == 2 and all(same(asked, one) for one in found)


def test_kinds_are_told_apart_and_none_stays_none():
    made = Made(np.ones((2, 3), np.float32), [1, 2], 3, 4, {"a": [1.5]}, [True, False], 0.5, 0.25)
    assert read(written(made), Made)[0].latents is None
    told = Told("preview", 1, 2, 3, np.zeros((0, 5), np.float32))
    assert read(written(told), Told)[0].denoised.shape == (0, 5)


def test_what_is_read_may_be_written_to():
    made = read(written(Told("preview", denoised=np.ones(3, np.float32))), Told)[0]
    made.denoised[0] = 2.0


def test_a_dtype_without_a_place_is_refused_by_who_writes():
    with pytest.raises(ValueError, match="complex64 has no place in a frame"):
        parts(Told("preview", denoised=np.ones(3, np.complex64)))


def head(value, tensors=0):
    raw = msgspec.msgpack.encode(value)
    return PREFIX.pack(len(raw), tensors) + raw


def told(tensor, tensors):
    return head({"kind": "preview", "denoised": tensor}, tensors)


BAD = {
    "a head beyond the limit": (PREFIX.pack(SMALL.head + 1, 0), "head of 4097 bytes"),
    "the largest lengths": (b"\xff" * PREFIX.size, "at most 4096 are read"),
    "tensors beyond the limit": (PREFIX.pack(1, SMALL.tensors + 1), "at most 65536 are read"),
    "no msgpack": (PREFIX.pack(3, 0) + b"\xc1\xc1\xc1", "no message"),
    "an empty head": (PREFIX.pack(0, 0), "no message"),
    "another type": (head([1, 2]), "Expected `object`"),
    "a nesting without end": (PREFIX.pack(4000, 0) + b"\x91" * 4000, "no message"),
    "a dtype of none": (told(["float128", [1]], 16), "is no tensor"),
    "objects": (told(["object", [1]], 8), "is no tensor"),
    "a dtype that is no text": (told([["float32"], [1]], 4), "is no tensor"),
    "a shape that is none": (told(["float32", 3], 12), "is no tensor"),
    "a negative axis": (told(["float32", [-1]], 4), "is no tensor"),
    "an axis of True": (told(["float32", [True]], 4), "is no tensor"),
    "too many axes": (told(["float32", [1] * 9], 4), "is no tensor"),
    "a tensor larger than a frame": (told(["float32", [1 << 40]], 4), "larger than a frame"),
    "a product beyond 64 bits": (told(["float64", [1 << 62, 1 << 62]], 8), "larger than a frame"),
    "an empty one of great sides": (told(["float64", [0, 1 << 62]], 0), "larger than a frame"),
    "a tensor larger than what comes": (told(["float32", [3]], 8), "does not fit"),
    "more than the head names": (told(["float32", [3]], 16), "brings 4 bytes"),
    "tensors of none": (told(None, 8), "brings 8 bytes"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_frame_is_a_sentence(what):
    data, sentence = BAD[what]
    with pytest.raises(BadFrame, match=sentence):
        read(data, Told)


def test_lengths_are_looked_at_before_anything_is_made(monkeypatch):
    made, empty = [], np.empty
    monkeypatch.setattr(np, "empty", lambda *given: made.append(given) or empty(*given))
    for data, _ in BAD.values():
        with pytest.raises(BadFrame):
            read(data, Told)
    assert all(np.prod(shape) * np.dtype(dtype).itemsize <= 16 for shape, dtype in made)


@given(st.binary(max_size=300), st.booleans())
@settings(deadline=None, max_examples=300)
def test_garbage_is_read_or_refused(data, framed):
    if framed:  # so that the decoder sees it
        data = PREFIX.pack(len(data), 0) + data
    with suppress(BadFrame):
        read(data, Asked, (7,))


@given(st.integers(0, 10**6), st.integers(0, 255))
@settings(deadline=None, max_examples=300)
def test_a_byte_that_fell_is_read_or_refused(place, value):
    data = bytearray(written(Told("preview", 1, 2, 3, np.ones((2, 3), np.float32))))
    data[place % len(data)] = value
    with suppress(BadFrame):
        read(bytes(data), Told)


def test_a_connection_carries_messages_and_ends_with_a_bad_frame():
    async def main():
        loop, ours, theirs = asyncio.get_running_loop(), *socket.socketpair()
        got, lost, left = [], loop.create_future(), loop.create_future()

        def end(kind, sock, done):
            made = Connection(kind, lambda m: got.append(m), done.set_result, SMALL)
            return loop.create_unix_connection(lambda: made, sock=sock)

        (one, a), (_, b) = await end(Told, ours, lost), await end(Told, theirs, left)
        b.send(Told("preview", denoised=np.arange(6, dtype=np.float32)))
        b.send(Told("done"))
        while len(got) < 2:
            await asyncio.sleep(0)
        one.write(PREFIX.pack(3, 0) + b"\xc1\xc1\xc1" + written(Told("row")))
        reasons = await asyncio.wait_for(asyncio.gather(lost, left), 10)
        a.send(Told("row"))  # nobody is there: nothing happens
        return [m.kind for m in got], reasons

    kinds, (ours, theirs) = asyncio.run(main())
    assert kinds == ["preview", "done"]
    assert "gone" in ours and "no message" in theirs


def test_an_error_passes_as_itself():
    errors = [
        Full("a", 2.0),
        NotReady("b", None),
        Quarantined("c", 3.0),
        TooLarge("d"),
        ValueError("e"),
    ]
    for error in [*errors, WorkerLost("f"), Failed("g"), GivenUp("h")]:
        again = Fault.of(error).error()
        assert type(again) is type(error) and str(again) == str(error)
        assert getattr(again, "retry_after", 0) == getattr(error, "retry_after", 0)
    assert isinstance(Fault("SystemExit", "x").error(), Failed)
