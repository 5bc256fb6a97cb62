"""Bytes that are hardly HTTP, thrown at a real socket: the server stays, and answers the next request."""

import random
import socket

import httpx
import pytest
from server_cases import KEY, TIMEOUT, WITH_KEY, on_socket
from test_connections import alive

HEAD = b"POST /v1/samples HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
SEEDS = (
    b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    HEAD + b"content-length: 2\r\n\r\n{}",
    HEAD + b'content-length: 26\r\n\r\n{"n": 2, "condition": [3]}',
    HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    HEAD + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
    HEAD + b'content-length: 16\r\n\r\n{"stream": true}',
    b"DELETE /v1/requests/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    b"GET /metrics HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
)
PARTS = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b":", b"HTTP/1.1", b"HTTP/2.0", b"chunked", b"0\r\n\r\n", b"-1",
    b"99999999999999999999", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"%00", b"../",
    b"\xff" * 8, b"a" * 20_000, b"host: localhost\r\n", b"{" * 50, b"ffffffffffffffff\r\n", b"\x16\x03\x01",
)  # fmt: skip


def mutated(rng):
    """A request with a few changes: bytes put in, taken out, replaced, doubled, or cut at the end."""
    made = bytearray(
        rng.choice(SEEDS) if rng.random() < 0.95 else rng.randbytes(rng.randrange(400))
    )
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(6):
            case 0:
                made[at:at] = rng.choice(PARTS)
            case 1:
                del made[at : at + rng.randrange(20)]
            case 2:
                made[at : at + 1] = rng.randbytes(1)
            case 3:
                made[at:at] = made[: rng.randrange(len(made) + 1)]
            case 4:
                del made[at:]
            case 5:
                made += rng.choice(SEEDS)
    return bytes(made)


def thrown(address, raw, end):
    """What the server says to some bytes.

    end  vanish: the client is gone at once; half: it sends no more; wait: it reads for a moment
    """
    host, port = address.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), TIMEOUT) as connection:
        found = b""
        try:
            connection.sendall(raw)
            if end == "half":
                connection.shutdown(socket.SHUT_WR)
            elif end == "wait":
                connection.settimeout(0.03)
            while end != "vanish" and (part := connection.recv(65536)):
                found += part
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
    return found


def check(count, seed):
    rng, heard = random.Random(seed), []
    with on_socket(header_timeout=2.0, body_timeout=2.0) as address:
        for i in range(count):
            raw = mutated(rng)
            said = thrown(address, raw, ("vanish", "half", "half", "wait")[i % 4])
            heard += (statuses := [line[:3] for line in said.split(b"HTTP/1.1 ")[1:]])
            assert all(status < b"500" for status in statuses), (raw, said)
            if i % 500 == 499:
                alive(address)
    assert {b"200", b"400", b"404", b"408", b"415", b"422"} - {*heard} <= {b"408"}


def test_two_thousand_requests_that_are_hardly_any(caplog):
    check(2000, 1)
    assert "Traceback" not in caplog.text and "Fatal" not in caplog.text


def test_the_key_is_not_guessed_by_them():
    rng = random.Random(2)
    with on_socket(key=KEY, header_timeout=2.0, body_timeout=2.0) as address:
        for _ in range(300):
            said = thrown(address, mutated(rng), "wait")
            statuses = {part[:3] for part in said.split(b"HTTP/1.1 ")[1:]}
            assert not statuses - {b"400", b"401", b"408", b"413", b"414", b"431", b"100"} or (
                b"livez" in said or b'"ready"' in said
            ), said
        assert httpx.get(f"{address}/v1/models", headers=WITH_KEY).status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_each(seed, caplog):
    check(10_000, 100 + seed)
    assert "Traceback" not in caplog.text and "Fatal" not in caplog.text
