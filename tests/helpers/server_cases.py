"""A server's application on a service that tests hold, reached without a socket; and one on a socket."""

import asyncio
import json
import threading
from contextlib import asynccontextmanager, contextmanager

import httpx
from fake_service import FakeService

from diffusion_engine.server.app import make_app
from diffusion_engine.server.listen import address, listening
from diffusion_engine.server.run import Server, config_of
from diffusion_engine.server.settings import Settings

HERE = "http://127.0.0.1"
KEY = "a-key-of-tests-0123456789"
WITH_KEY = {"authorization": f"Bearer {KEY}"}
TIMEOUT = 30.0


@asynccontextmanager
async def served(service=None, started=True, **settings):
    """A client of an app on a service, FakeService() if none is given; `client.app` and `client.service`."""
    service = FakeService() if service is None else service
    app = make_app(service, Settings(**settings))
    if started:
        await service.start()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=HERE, timeout=TIMEOUT) as client:
        client.app, client.service = app, service
        try:
            yield client
        finally:
            await service.close(0.0)


def with_client(test, service=None, **settings):
    """Runs an async function of a client."""

    async def run():
        async with served(service() if callable(service) else service, **settings) as client:
            await asyncio.wait_for(test(client), TIMEOUT)

    asyncio.run(run())


@contextmanager
def on_socket(service=None, **settings):
    """The address of a real server in a thread; it ends with the block."""
    service = FakeService() if service is None else service
    made = Settings(**{"port": 0} | settings)
    listener = listening(made)
    app = make_app(service, made)
    server = Server(config_of(app, made))
    started, failed = threading.Event(), []

    async def serve():
        await service.start()
        started.set()
        await server.serve([listener])
        await service.close(0.0)

    def run():
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert started.wait(TIMEOUT)
        yield address(listener)
    finally:
        server.should_exit = True
        thread.join(TIMEOUT)
        listener.close()
        assert not thread.is_alive(), "the server does not end"
        assert not failed, failed


def events_of(text):
    """(name, data) of each server-sent event."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block and block[0] != ":"]
    return [(b[0].removeprefix("event: "), json.loads(b[1].removeprefix("data: "))) for b in blocks]


def error_of(response, status):
    """The error of an answer, whose shape is checked."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert len(error["message"]) > 10 and "Traceback" not in error["message"]
    return error
