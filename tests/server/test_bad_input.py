"""Written requests that are wrong: each is refused at once, with a sentence, and the next one is answered."""

import json
import time

from bad_cases import cases
from server_cases import error_of, with_client

from diffusion_engine.workers.inprocess import InProcess
from diffusion_engine.zoo import load_network

SLOW = 2.0  # seconds: a hang, where each takes milliseconds on a machine of its own


def digits():
    return InProcess(load_network("digits"), 4, threads=1, max_cost=5000)


def test_each_is_refused_with_a_sentence():
    async def test(client):
        found, took = [], []
        for name, method, path, body, status, headers in cases():
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            began = time.monotonic()
            answer = await client.request(method, path, content=content, headers=headers)
            took.append(time.monotonic() - began)
            try:
                error_of(answer, status)
            except AssertionError as error:
                found.append((name, method, path, str(body)[:80], str(error)[:120]))
        assert not found, "\n".join(map(str, found))
        assert max(took) < SLOW
        assert (await client.post("/v1/samples", json={})).status_code == 200
        assert len(took) >= 150 and client.service.snapshot()["waiting"] == 0

    with_client(test, digits)
