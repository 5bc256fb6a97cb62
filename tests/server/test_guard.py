"""What a request meets first: the key, the limits of its head and its body."""

import asyncio
import base64
import json

import pytest
from server_cases import KEY, WITH_KEY, error_of, served, with_client

from diffusion_engine.server.guard import FIELDS, OPEN, TARGET, is_page


def routes(within):
    """(method, path) of all routes, whatever kind they are."""
    for route in within.routes:
        if hasattr(route, "path"):
            for method in sorted(getattr(route, "methods", None) or {"GET"}):
                yield method, route.path.replace("{id}", "digits")
        else:
            yield from routes(route.original_router)


def test_every_route_but_health_and_the_page_asks_for_the_key():
    async def test(client):
        found = list(routes(client.app))
        described = {path.replace("{id}", "digits") for path in client.app.openapi()["paths"]}
        assert described < {path for _, path in found}
        for method, path in found:
            answer = await client.request(method, path)
            if path in OPEN:
                assert answer.status_code == 200
            elif is_page(path):
                assert answer.status_code in (200, 404)
            else:
                error_of(answer, 401) if method != "HEAD" else None
                assert answer.status_code == 401, path
                assert "Bearer" in answer.headers["www-authenticate"]
        error_of(await client.get("/nowhere"), 401)
        # A script asks by itself: of Basic its browser would make a dialog of its own.
        answer = await client.get("/v1/models", headers={"sec-fetch-mode": "cors"})
        assert "Basic" not in answer.headers["www-authenticate"]

    with_client(test, key=KEY)


@pytest.mark.parametrize(
    "header",
    [
        "", "Bearer", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", KEY, f"Token {KEY}", "Basic !!!",
        f"Basic {base64.b64encode(b'a:b').decode()}", f"Basic {base64.b64encode(KEY.encode()).decode()}",
        "Bearer \xff\xfe",
    ],
)  # fmt: skip
def test_a_wrong_key(header):
    async def test(client):
        headers = {"authorization": header.encode("latin-1")}
        error_of(await client.get("/v1/models", headers=headers), 401)

    with_client(test, key=KEY)


def test_a_key_is_taken_as_a_bearer_and_as_a_password():
    async def test(client):
        basic = base64.b64encode(f"anybody:{KEY}".encode()).decode()
        for header in (f"Bearer {KEY}", f"bearer   {KEY} ", f"Basic {basic}"):
            answer = await client.get("/v1/models", headers={"authorization": header})
            assert answer.status_code == 200, header

    with_client(test, key=KEY)


def test_a_name_of_another_host_is_not_answered_without_a_key():
    async def test(client):
        for host, status in (
            ("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("LOCALHOST:1", 200),
            ("proxy.example", 200), ("evil.example", 421), ("", 421), ("localhost.evil.example", 421),
        ):  # fmt: skip
            answer = await client.get("/v1/models", headers={"host": host})
            assert answer.status_code == status, host

    with_client(test, hosts=["Proxy.Example"])


def test_every_answer_has_an_id():
    async def test(client):
        paths = ("/livez", "/v1/models", "/nowhere", "/v1/requests/x")
        ids = [(await client.get(path)).headers["x-request-id"] for path in paths]
        assert len(set(ids)) == 4 and all(len(name) == 32 for name in ids)

    with_client(test)


async def ask(app, body=(b"{}",), headers=(), path="/v1/samples", method="POST", wait=()):
    """An answer of the app to chunks of a body, by ASGI itself; (status, headers, content)."""
    sent, chunks = [], list(body)

    async def receive():
        if not chunks:
            await asyncio.sleep(3600)
        for seconds in wait:
            await asyncio.sleep(seconds)
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message):
        sent.append(message)

    given = [(b"host", b"localhost"), (b"content-type", b"application/json"), *headers]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"", "headers": given, "http_version": "1.1", "scheme": "http",
        "asgi": {"version": "3.0"},
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 10)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(content)


def asking(test, **settings):
    async def run():
        async with served(**settings) as client:
            await test(client)

    asyncio.run(run())


CHUNKED = (b"transfer-encoding", b"chunked")


def test_a_large_body_is_refused_by_its_length_and_while_it_comes():
    async def test(client):
        length = [(b"content-length", b"1001")]
        status, headers, said = await ask(client.app, [], length)
        assert status == 413 and said["error"]["code"] == "too_large"
        assert headers[b"connection"] == b"close"
        status, headers, said = await ask(client.app, [b" " * 600] * 2, [CHUNKED])
        assert status == 413 and headers[b"connection"] == b"close"
        status, _, _ = await ask(client.app, [b"{}", b" " * 998], [CHUNKED])
        assert status == 200

    asking(test, max_body=1000)


def test_a_length_that_lies_does_not_help():
    async def test(client):
        status, _, _ = await ask(client.app, [b" " * 600] * 2, [(b"content-length", b"5")])
        assert status == 413

    asking(test, max_body=1000)


def test_a_slow_body():
    async def test(client):
        status, headers, said = await ask(client.app, [b"{"] * 50, [CHUNKED], wait=[0.02])
        assert status == 408 and headers[b"connection"] == b"close"
        assert said["error"]["code"] == "slow"

    asking(test, body_timeout=0.2)


def test_the_head_has_limits():
    async def test(client):
        many = [(b"x-%d" % i, b"1") for i in range(FIELDS)]
        assert (await ask(client.app, headers=many))[0] == 431
        assert (await ask(client.app, headers=[(b"x", b"a" * 3000)]))[0] == 431
        assert (await ask(client.app, path="/" + "a" * TARGET, method="GET"))[0] == 414
        assert (await ask(client.app, headers=[(b"x", b"a" * 1000)]))[0] == 200

    asking(test, max_header=2000)


def test_more_requests_than_are_answered_at_once():
    async def run():
        async with served(max_open=2) as client:
            client.service.open.clear()
            waiting = [asyncio.create_task(client.post("/v1/samples", json={})) for _ in range(2)]
            while len(client.service.running) < 2:
                await asyncio.sleep(0.01)
            refused = await client.post("/v1/samples", json={})
            assert (
                error_of(refused, 503)["code"] == "busy" and refused.headers["retry-after"] == "1"
            )
            assert (await client.get("/readyz")).status_code == 200
            client.service.open.set()
            assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]
            assert (await client.post("/v1/samples", json={})).status_code == 200

    asyncio.run(run())


def test_bodies_are_too_large_together():
    async def run():
        async with served(max_bodies=1000) as client:
            client.service.open.clear()
            large = {"content": b"{}" + b" " * 700, "headers": {"content-type": "application/json"}}
            first = asyncio.create_task(client.post("/v1/samples", **large))
            while not client.service.running:
                await asyncio.sleep(0.01)
            assert error_of(await client.post("/v1/samples", **large), 503)["code"] == "busy"
            client.service.open.set()
            assert (await first).status_code == 200
            assert (await client.post("/v1/samples", **large)).status_code == 200
            assert client.app.state.front.counts.bodies == 0

    asyncio.run(run())


def test_who_hangs_up_gives_the_request_up():
    """Also in the middle of a stream; nobody is left waiting, and others go on."""

    async def run(body):
        async with served() as client:
            client.service.open.clear()
            gone, sent = asyncio.Event(), []
            chunks = [json.dumps(body).encode()]

            async def receive():
                if chunks:
                    return {"type": "http.request", "body": chunks.pop(), "more_body": False}
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                sent.append(message)

            scope = {
                "type": "http", "method": "POST", "path": "/v1/samples", "raw_path": b"/v1/samples",
                "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
                "query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http",
            }  # fmt: skip
            task = asyncio.create_task(client.app(scope, receive, send))
            other = asyncio.create_task(client.post("/v1/samples", json={}))
            while len(client.service.running) < 2:
                await asyncio.sleep(0.01)
            mine = next(run for run in client.service.running if run.asked.priority == 7)
            gone.set()
            await asyncio.wait_for(task, 10)
            assert client.service.cancelled == [mine.id]
            assert not client.app.state.front.requests.open.keys() & {mine.id}
            client.service.open.set()
            assert (await other).status_code == 200

    for stream in (False, True):
        asyncio.run(run({"stream": stream, "priority": 7}))


@pytest.mark.parametrize("body", [{}, {"stream": True}, {"wait": False}])
def test_who_hangs_up_while_the_service_looks_at_a_request_gives_it_up(body):
    async def test(client):
        looked, given_up = asyncio.Event(), asyncio.Event()

        async def submit(asked):
            looked.set()
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()

        client.service.submit = submit
        path = "/v1/samples"
        chunks = [json.dumps(body).encode()]

        async def receive():
            if chunks:
                return {"type": "http.request", "body": chunks.pop(), "more_body": False}
            await looked.wait()
            return {"type": "http.disconnect"}

        sent = []

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "root_path": "",
            "http_version": "1.1", "scheme": "http",
        }  # fmt: skip
        await asyncio.wait_for(client.app(scope, receive, send), 10)
        assert given_up.is_set() and client.app.state.front.taking == 0 and sent[0]["status"] == 499

    with_client(test)


def test_what_a_key_is_for_the_service():
    """A name of who asks, which is not the key."""

    async def test(client):
        await client.post("/v1/samples", json={}, headers=WITH_KEY)
        key = client.service.asked[0].key
        assert key and KEY not in key

    with_client(test, key=KEY)
