"""Clients that are slow, leave, or come in numbers: a server has room for the next one."""

import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from fault_load import Load, alone
from fault_networks import SLOW
from served import resident, serving, until

from diffusion_engine.client import GivenUp, Lost, Unavailable

QUEUE = 8
GROWTH = 30 << 20  # bytes
FLAGS = ("--model", "faulty=fault_networks:faulty", "--capacity", "4", "--max-queue", str(QUEUE))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("clients"), *FLAGS) as server:
        yield server
        assert len(server.workers()) == 1 and "Traceback" not in server.said()


def connected(server):
    host, port = server.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def message(body, length=None):
    """The bytes of a request for samples."""
    head = (
        f"POST /v1/samples HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length or len(body)}\r\n"
    )
    return f"{head}content-type: application/json\r\n\r\n{body}".encode()


# A minute and more, unless it is given up.
SLOWLY = '{"model": "faulty", "condition": %d, "n": 16, "spec": {"steps": 900}, "stream": %s}'


def test_who_vanishes_gives_its_request_up(server):
    """In the middle of a head, of a body, of the waiting and of a stream; with a reset, too."""
    body = SLOWLY % (SLOW, "false")
    whole, stream = message(body), message(SLOWLY % (SLOW, "true"))
    for sent in (whole[:20], whole[:-10], whole, stream):
        for reset in (False, True):
            sock = connected(server)
            sock.sendall(sent)
            if sent in (whole, stream):
                until(lambda: not server.idle(), 30, server.said)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            server.wait_idle()
    Load(server, 2, steps=2).check_all_made()


def test_who_closes_its_side_alone_gives_its_request_up(server):
    """As a proxy tells that its own client has left."""
    with connected(server) as sock:
        sock.sendall(message(SLOWLY % (SLOW, "false")))
        until(lambda: not server.idle(), 30, server.said)
        sock.shutdown(socket.SHUT_WR)
        server.wait_idle()
    Load(server, 2, steps=2).check_all_made()


def test_who_reads_slowly_holds_nobody_up(server):
    """A stream whose events nobody reads, beside others that are read."""
    with connected(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        body = '{"model": "faulty", "n": 16, "spec": {"steps": 400}, "preview": 1, "stream": true}'
        sock.sendall(message(body.replace('"n"', '"condition": 1, "n"')))
        began = time.monotonic()
        Load(server, 2, steps=20).check_all_made()
        print(f"beside a slow reader: {time.monotonic() - began:.1f} s")
    server.wait_idle()


def test_a_full_queue_says_so_and_loses_nothing(server):
    load = Load(server, QUEUE, steps=30)
    with server.client(retries=0) as client, ThreadPoolExecutor(8) as pool:

        def ask(seed):
            try:
                return client.sample("ddim", model="faulty", steps=2, seed=seed, condition=SLOW)
            except Unavailable as error:
                return error

        made = list(pool.map(ask, range(64)))
    full = [one for one in made if isinstance(one, Unavailable)]
    assert len(full) > 32 and {one.code for one in full} == {"queue_full"}
    assert all(one.retry_after >= 1 and one.status == 429 for one in full)
    own = alone(list(range(64)), 2)
    for one in made:
        if one not in full:
            assert (one.samples[0] == own[one.seeds[0]]).all()
    load.check_all_made()
    server.wait_idle()


class Cancels:
    """Requests that are given up at a random moment, in every way there is."""

    def __init__(self, server, seed):
        self.order, self.server = random.Random(seed), server
        self.client = server.client(retries=0)
        self.ways = (self.stream, self.left, self.hung_up, self.late)

    def run(self, count):
        with self.client:
            for _ in range(count):
                about = {
                    "model": "faulty",
                    "condition": SLOW,
                    "steps": self.order.choice((2, 20, 300)),
                }
                try:
                    self.order.choice(self.ways)(about)
                except Unavailable as error:
                    assert error.code == "queue_full"
                    time.sleep(0.01)

    def stream(self, about):
        with self.client.stream("ddim", preview=self.order.randrange(3), **about) as events:
            for _ in range(self.order.randrange(6)):
                if next(events, None) is None:
                    break

    def left(self, about):
        request = self.client.submit("ddim", n=self.order.randrange(1, 4), **about)
        time.sleep(self.order.choice((0, 0, 0.01, 0.05)))
        request.cancel()

    def hung_up(self, about):
        seconds = self.order.choice((0.005, 0.02, 0.1))
        with self.server.client(retries=0, timeout=seconds) as client, suppress(Lost):
            client.sample("ddim", **about)

    def late(self, about):
        with suppress(GivenUp):
            self.client.sample("ddim", deadline=self.order.choice((0.001, 0.02)), **about)


def cancels(server, count):
    """How much the processes grew."""

    def once(count, seed):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: Cancels(server, seed + i).run(count // 4), range(4)))
        server.wait_idle()

    once(100, 1000)
    processes = server.processes()
    before = sum(map(resident, processes))
    once(count, 0)
    assert server.processes() == processes and len(processes) == 2
    Load(server, 4, steps=10).check_all_made()
    grown = sum(map(resident, processes)) - before
    print(f"{count} cancels: {grown / 1e6:.1f} MB more, {server.counts()}")
    assert grown < GROWTH
    assert server.left() == []


def test_cancels(server):
    cancels(server, 300)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_cancels(server):
    cancels(server, 10_000)
