"""Real sockets: slow, silent, vanishing and broken clients."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from fake_service import FakeService, about
from server_cases import KEY, TIMEOUT, on_socket

GET = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"


def post(body, *more):
    head = [
        b"POST /v1/samples HTTP/1.1",
        b"host: localhost",
        b"content-type: application/json",
        *more,
    ]
    return b"\r\n".join([*head, b"content-length: %d" % len(body), b"", body])


@contextmanager
def connected(address):
    host, port = address.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), TIMEOUT) as connection:
        yield connection


def rest(connection):
    """All that comes until the other side closes."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def answer(connection):
    """(status, headers, content) of one answer with a length."""
    found = b""
    while b"\r\n\r\n" not in found:
        part = connection.recv(65536)
        assert part, found
        found += part
    head, _, content = found.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(content) < int(headers.get("content-length", 0)):
        content += connection.recv(65536)
    return int(lines[0].split()[1]), headers, content


def eventually(condition):
    until = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < until, "it never became so"
        time.sleep(0.01)


def alive(address):
    assert httpx.get(f"{address}/readyz", timeout=TIMEOUT).json() == {"status": "ready"}
    assert httpx.post(f"{address}/v1/samples", json={}, timeout=TIMEOUT).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"G", GET[:20], GET[:-2]])
def test_a_head_that_does_not_come(begun):
    with on_socket(header_timeout=0.3) as address, connected(address) as connection:
        connection.sendall(begun)
        said = rest(connection)
        assert said.startswith(b"HTTP/1.1 408") and b'"code":"slow"' in said
        alive(address)


def test_a_head_that_drips():
    """The time is that of the whole head, however busy its client is."""
    with on_socket(header_timeout=0.5) as address, connected(address) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(int(TIMEOUT / 0.02)):
                connection.sendall(b"x")
                time.sleep(0.02)
        assert time.monotonic() - began < TIMEOUT / 2
        alive(address)


def test_the_second_head_of_a_connection_has_its_time_too():
    with (
        on_socket(header_timeout=0.3, keep_alive=TIMEOUT) as address,
        connected(address) as connection,
    ):
        connection.sendall(GET)
        assert answer(connection)[0] == 200
        connection.sendall(GET[:10])
        assert rest(connection).startswith(b"HTTP/1.1 408")


def test_a_body_that_drips():
    with on_socket(body_timeout=0.5) as address, connected(address) as connection:
        connection.sendall(post(b" " * 1000)[:-1000])
        with pytest.raises(OSError):
            for _ in range(int(TIMEOUT / 0.02)):
                connection.sendall(b" ")
                time.sleep(0.02)
        alive(address)


def test_an_idle_connection_ends():
    with on_socket(keep_alive=1.0) as address, connected(address) as connection:
        connection.sendall(GET)
        assert answer(connection)[0] == 200
        assert rest(connection) == b""


def test_requests_that_share_a_connection():
    with on_socket() as address, connected(address) as connection:
        for body, status in ((b"{}", 200), (b"[]", 422), (b"{", 400), (b'{"n": 2}', 200)):
            connection.sendall(post(body))
            assert answer(connection)[0] == status
        connection.sendall(GET * 3)
        found = b""
        while found.count(b'{"status":"alive"}') < 3:
            found += connection.recv(65536)


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n\r\n", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\n: empty\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
        post(b"{}", b"transfer-encoding: chunked").replace(b"{}", b"zz\r\n"),
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 40000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 9000 + b"\r\n",
        b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request(raw):
    with on_socket(header_timeout=0.5) as address:
        with connected(address) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            said = rest(connection)
            assert not said or 400 <= int(said.split()[1]) < 500, said
            if b"\r\n\r\n{" in said:
                content = said.partition(b"\r\n\r\n")[2].decode()
                assert json.JSONDecoder().raw_decode(content)[0]["error"]["message"]
        alive(address)


def test_a_head_that_is_too_large_is_said_to_be():
    with on_socket() as address, connected(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * 60000)
        said = rest(connection)
        assert said.startswith(b"HTTP/1.1 431") and b'"error"' in said


def test_a_body_that_is_nonsense_is_answered_once(caplog):
    """The app is about to answer, without a look at the body, and has nobody left to answer to."""
    with on_socket() as address, connected(address) as connection:
        head = post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        connection.sendall(head.replace(b"/v1/samples", b"/nowhere") + b"nonsense\r\n")
        said = rest(connection)
        assert said.startswith(b"HTTP/1.1 400") and said.count(b"HTTP/1.1 ") == 1
        alive(address)
    assert "Traceback" not in caplog.text


def test_a_body_without_end_is_not_read_to_its_end():
    with on_socket(max_body=1000) as address, connected(address) as connection:
        head = post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        connection.sendall(head)
        with pytest.raises(OSError):
            for _ in range(1 << 16):
                connection.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        alive(address)


def test_a_body_that_no_route_reads_ends_the_connection():
    with on_socket(key=KEY) as address, connected(address) as connection:
        connection.sendall(post(b" " * 100000)[:-50000])
        status, headers, _ = answer(connection)
        assert status == 401 and headers["connection"] == "close"


def held():
    service = FakeService(about(shape=(3, 256, 256)))
    service.open.clear()
    return service


@pytest.mark.parametrize("body", [b"{}", b'{"stream": true}'])
@pytest.mark.parametrize("end", ["close", "reset", "half"])
def test_who_hangs_up_gives_the_request_up(body, end):
    service = held()
    with on_socket(service) as address:
        with connected(address) as connection:
            connection.sendall(post(body))
            eventually(lambda: service.running)
            if end == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            elif end == "half":
                connection.shutdown(socket.SHUT_WR)
                eventually(lambda: service.cancelled)
        eventually(lambda: service.cancelled)
        eventually(lambda: not service.running)


def test_who_reads_nothing_is_left():
    """A stream of large previews fills every buffer; the request ends, and so does the connection."""
    service = held()
    with on_socket(service, write_timeout=0.3) as address, connected(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = b'{"stream": true, "preview": 1, "spec": {"steps": 500}, "n": 8}'
        connection.sendall(post(body))
        eventually(lambda: service.cancelled)


def test_connections_beyond_their_number_are_closed():
    with on_socket(max_connections=3) as address:
        host, port = address.removeprefix("http://").rsplit(":", 1)
        held = [socket.create_connection((host, int(port)), TIMEOUT) for _ in range(3)]
        try:
            for connection in held:  # each is there, and not only in the backlog
                connection.sendall(GET)
                assert answer(connection)[0] == 200
            with connected(address) as one_more:
                assert rest(one_more) == b""
        finally:
            for connection in held:
                connection.close()
        eventually(lambda: httpx.get(f"{address}/livez").status_code == 200)


def test_many_clients_vanish_and_nothing_is_left():
    service = held()
    with on_socket(service, max_queue=100) as address:
        before = threading.active_count()
        for _ in range(20):
            connections = []
            for _ in range(3):
                host, port = address.removeprefix("http://").rsplit(":", 1)
                connections.append(socket.create_connection((host, int(port)), TIMEOUT))
                connections[-1].sendall(post(b'{"stream": true}'))
            for connection in connections:
                connection.close()
        eventually(lambda: not service.running and len(service.cancelled) == len(service.asked))
        service.open.set()
        assert threading.active_count() <= before + 1
