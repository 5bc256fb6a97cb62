"""When a client asks again, what it sends then, and what it raises."""

import asyncio
import json
import time

import httpx
import pytest
from client_cases import packed, two

from diffusion_engine.client import Failed, GivenUp, Lost, Refused, Unavailable
from diffusion_engine.client.messages import TENSORS

FULL = (429, {"error": {"message": "full", "code": "queue_full"}}, {"retry-after": "2"})
STARTS = (503, {"error": {"message": "it starts", "code": "not_ready"}}, {"retry-after": "5"})
OUT = (503, {"error": {"message": "it kills", "code": "quarantined"}}, {"retry-after": "3600"})
MUTE = (503, {}, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"})
WRONG = (422, {"error": {"message": "n=0", "code": "invalid", "param": "n"}}, {})
GONE, UNSEEN = httpx.ReadError("reset"), httpx.ConnectError("refused")
MADE = (200, packed(two(), [1, 2]), {"content-type": TENSORS})


class Server:
    """Answers with what it is given, one after another, and keeps what came."""

    def __init__(self, *answers):
        self.answers, self.came = list(answers), []
        self.transport = httpx.MockTransport(self.answer)

    def answer(self, request):
        self.came.append((request.method, request.url.path, request.read()))
        made = self.answers.pop(0)
        if isinstance(made, Exception):
            raise made
        status, content, headers = made
        if isinstance(content, bytes):
            return httpx.Response(status, content=content, headers=headers)
        return httpx.Response(status, json=content, headers=headers)


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that were waited, which pass at once."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waited


def served(clients, *answers, **how):
    server = Server(*answers)
    return server, clients(transport=server.transport, **how)


def test_it_waits_as_long_as_it_is_told_and_asks_for_the_same(clients, pauses):
    server, client = served(clients, FULL, STARTS, GONE, MADE)
    made = client.sample("ddim", 2, steps=3)
    assert made.samples.tobytes() == two().tobytes() and pauses[:2] == [2.0, 5.0]
    bodies = [json.loads(body) for _, _, body in server.came]
    assert len(bodies) == 4 and all(body == bodies[0] for body in bodies)
    assert bodies[0].keys() == {"n", "seed", "spec"}


@pytest.mark.parametrize("answer, kind, tries", [
    (FULL, Unavailable, 4), (GONE, Lost, 4), (UNSEEN, Lost, 4), (OUT, Unavailable, 1), (WRONG, Refused, 1),
    ((422, {"error": {"message": "nan", "code": "failed"}}, {}), Failed, 1),
    ((409, {"error": {"message": "late", "code": "given_up"}}, {}), GivenUp, 1),
    ((500, {}, {}), Failed, 1), ((200, b"{}", {"content-type": TENSORS}), Failed, 1),
])  # fmt: skip
def test_what_is_tried_again(clients, pauses, answer, kind, tries):
    server, client = served(clients, *[answer] * 4)
    with pytest.raises(kind) as raised:
        client.sample("ddim")
    assert len(server.came) == tries and len(pauses) == tries - 1
    if kind is Unavailable:
        assert raised.value.retry_after == float(answer[2]["retry-after"])


def test_pauses_grow_where_the_server_says_nothing(clients, pauses):
    _, client = served(clients, MUTE, GONE, MUTE, MUTE, MUTE, retries=4)
    with pytest.raises(Unavailable):
        client.sample("ddim")
    assert [0.12 * 2**i < pause <= 0.25 * 2**i for i, pause in enumerate(pauses)] == [True] * 4


def test_no_retries_means_one_try(clients, pauses):
    server, client = served(clients, FULL, retries=0)
    with pytest.raises(Unavailable, match="full"):
        client.sample("ddim")
    assert len(server.came) == 1 and not pauses


def test_a_silent_server_is_not_asked_again(clients, pauses):
    server, client = served(clients, httpx.ReadTimeout(""))
    with pytest.raises(TimeoutError, match="said nothing for longer than `timeout`"):
        client.sample("ddim")
    assert len(server.came) == 1


def test_what_is_left_with_the_server_is_not_left_twice(clients, pauses):
    server, client = served(clients, UNSEEN, FULL, GONE)
    with pytest.raises(Lost, match="ended the connection"):
        client.submit("ddim")
    assert len(server.came) == 3
    assert json.loads(server.came[0][2])["wait"] is False


def test_a_request_that_was_left_is_looked_at_until_it_is_done(clients, pauses):
    left = (202, {"id": "r1", "status": "queued"}, {})
    waits = (200, {"id": "r1", "status": "running"}, {})
    server, client = served(clients, left, waits, waits, GONE, waits, MADE, waits, waits)
    request = client.submit("ddim", n=2)
    assert request.id == "r1"
    assert request.result().samples.shape == (2, 1, 4, 6)
    assert {came[:2] for came in server.came[1:]} == {("GET", "/v1/requests/r1")}
    assert pauses[1] == 2 * pauses[0]
    assert request.status() == "running"
    with pytest.raises(TimeoutError, match="request r1 is running after 0 s"):
        request.result(timeout=0)


@pytest.mark.parametrize("code, kind", [("failed", Failed), ("given_up", GivenUp)])
def test_a_request_that_was_left_and_failed_says_why(clients, code, kind):
    about = {"id": "r1", "status": "failed", "error": {"message": "why", "code": code}}
    _, client = served(clients, (200, about, {}))
    with pytest.raises(kind, match="why"):
        client.request("r1").result()


def test_a_request_that_was_left_is_given_up(clients):
    running = (200, {"id": "r1", "status": "cancelled"}, {})
    server, client = served(clients, running, (200, {"id": "r1", "status": "done"}, {}))
    assert client.request("r1").cancel() is True
    assert client.request("r1").cancel() is False
    assert [came[:2] for came in server.came] == [("DELETE", "/v1/requests/r1")] * 2


def test_whether_it_is_ready(clients, pauses):
    server, client = served(clients, (200, {}, {}), STARTS, UNSEEN)
    assert [client.ready() for _ in range(3)] == [True, False, False]
    assert not pauses and server.came[0][:2] == ("GET", "/readyz")


def test_arguments_that_make_no_sense(clients):
    for how, said in (
        ({"base_url": "127.0.0.1:8000"}, "base_url='127.0.0.1:8000': give one like http://"),
        ({"timeout": 0}, "timeout=0: give seconds, more than 0"),
        ({"retries": -1}, "retries=-1: how often a request is sent again"),
    ):
        with pytest.raises(ValueError, match=said):
            clients(**how)


def test_the_key_is_sent_and_not_shown(clients):
    seen = []

    def answer(request):
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"data": []})

    client = clients(transport=httpx.MockTransport(answer), key="sixteen-letters-x")
    assert client.models() == [] and seen == ["Bearer sixteen-letters-x"]
    assert "sixteen" not in repr(vars(getattr(client, "_thing", client)))
