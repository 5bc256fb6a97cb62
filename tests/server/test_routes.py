"""The native routes on a service without a network."""

import asyncio
import base64
import gc
import io
import json
import weakref

import numpy as np
import pytest
import safetensors.numpy
from fake_service import FakeService, about
from PIL import Image
from server_cases import error_of, events_of, served, with_client

from diffusion_engine.server import waiting
from diffusion_engine.server.kept import SELF
from diffusion_engine.server.pictures import METADATA_KEY
from diffusion_engine.workers.errors import (
    Failed,
    Full,
    GivenUp,
    NotReady,
    Quarantined,
    TooLarge,
    WorkerLost,
)

FIELD = about("field", (5,), 0, False)
BOTH = {"models": {"digits": "digits", "field": "a:b"}}
NPZ, TENSORS = "application/x-npz", "application/vnd.safetensors"


def both():
    return FakeService(about(), FIELD)


def test_pngs_hold_the_recipe_of_their_sample():
    async def test(client):
        body = {"condition": [3, 5], "seeds": [7, 2**64 - 1], "spec": {"steps": 3}, "priority": 2}
        answer = await client.post("/v1/samples", json=body)
        assert answer.status_code == 200
        made = answer.json()
        asked = client.service.asked[0]
        assert made["id"] == asked.id == answer.headers["x-request-id"]
        assert (asked.seeds, asked.condition, asked.priority) == ([7, 2**64 - 1], [3, 5], 2)
        assert asked.spec == {"solver": {"name": "ddim", "options": {}}, "steps": 3}
        assert made["seeds"] == asked.seeds and made["model"] == "digits"
        for i, sample in enumerate(made["samples"]):
            with Image.open(io.BytesIO(base64.b64decode(sample["png"]))) as image:
                assert image.size == (8, 8) and image.mode == "L"
                recipe = json.loads(image.text[METADATA_KEY])
            assert recipe["seeds"] == [asked.seeds[i]] and recipe["condition"] == [
                asked.condition[i]
            ]

    with_client(test)


def test_arrays_are_the_samples():
    async def test(client):
        body = {"model": "field", "n": 3, "seed": 11}
        npz = await client.post("/v1/samples", json=body, headers={"accept": NPZ})
        with np.load(io.BytesIO(npz.content), allow_pickle=False) as arrays:
            samples, seeds = arrays["samples"], arrays["seeds"]
            said = json.loads(str(arrays["about"]))
            assert json.loads(str(arrays["recipe"]))["seeds"] == [11, 12, 13]
        assert samples.shape == (3, 5) and seeds.tolist() == [11, 12, 13] == said["seeds"]
        tensors = await client.post("/v1/samples", json=body, headers={"accept": TENSORS})
        again = safetensors.numpy.load(tensors.content)
        assert np.array_equal(again["samples"], samples)
        assert (npz.headers["content-type"], tensors.headers["content-type"]) == (NPZ, TENSORS)
        refused = error_of(await client.post("/v1/samples", json=body), 406)
        assert NPZ in refused["message"] and len(client.service.asked) == 2

    with_client(test, both, **BOTH)


def test_seeds_that_nobody_gave_differ():
    async def test(client):
        for _ in range(2):
            await client.post("/v1/samples", json={"n": 4})
        drawn = [seed for asked in client.service.asked for seed in asked.seeds]
        assert len(set(drawn)) == 8 and max(drawn) < 2**53

    with_client(test)


def test_tensors_reach_the_service():
    x = np.arange(128, dtype=np.float16).reshape(2, 1, 8, 8)
    given = base64.b64encode(safetensors.numpy.save({"x": x})).decode()

    async def test(client):
        answer = await client.post("/v1/samples", json={"tensors": given, "spec": {"start": 0.5}})
        assert answer.status_code == 200
        asked = client.service.asked[0]
        assert np.array_equal(asked.tensors["x"], x.astype(np.float32))
        assert asked.tensors["x"].dtype == np.float32 and len(asked.seeds) == 2

    with_client(test)


def test_a_stream_tells_rows_previews_and_samples():
    async def test(client):
        body = {"seed": 4, "n": 2, "preview": 2, "stream": True, "spec": {"steps": 4}}
        answer = await client.post("/v1/samples", json=body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer.text)
        kinds = [kind for kind, _ in events]
        assert kinds[:2] == ["queued", "started"] and kinds[-1] == "done"
        assert kinds.count("row") == 6 and kinds.count("preview") == 4
        assert events[0][1]["rows"] == 5
        shown = next(data for kind, data in events if kind == "preview")
        assert (shown["sample"], shown["row"], shown["rows"]) == (0, 2, 5)
        assert base64.b64decode(shown["png"])[1:4] == b"PNG"
        whole = await client.post("/v1/samples", json={"seed": 4, "n": 2})
        assert events[-1][1]["samples"] == whole.json()["samples"]

    with_client(test)


def test_a_stream_of_arrays():
    async def test(client):
        body = {"model": "field", "preview": 5, "stream": True}
        answer = await client.post("/v1/samples", json=body, headers={"accept": NPZ})
        events = dict(events_of(answer.text))
        for kind, name, shape in (("preview", "denoised", (5,)), ("done", "samples", (1, 5))):
            with np.load(io.BytesIO(base64.b64decode(events[kind]["npz"]))) as arrays:
                assert arrays[name].shape == shape

    with_client(test, both, **BOTH)


def test_a_stream_says_what_failed():
    async def test(client):
        client.service.fails = Failed("a sample met a value that is not finite")
        answer = await client.post("/v1/samples", json={"stream": True})
        kind, data = events_of(answer.text)[-1]
        assert kind == "error" and data["error"]["code"] == "failed"

    with_client(test)


def test_a_stream_is_heard_of_where_nothing_comes(monkeypatch):
    """What stands between may cut a connection that is silent."""
    monkeypatch.setattr(waiting, "BEAT", 0.02)

    async def test(client):
        client.service.open.clear()
        asyncio.get_running_loop().call_later(0.2, client.service.open.set)
        text = (await client.post("/v1/samples", json={"stream": True})).text
        assert 2 <= text.count("\n: still here\n\n") <= 10
        assert events_of(text)[-1][0] == "done"

    with_client(test)


def test_what_has_ended_holds_no_samples():
    async def test(client):
        for body in ({}, {"stream": True}):
            made = await client.post("/v1/samples", json=body)
            where = f"/v1/requests/{made.headers['x-request-id']}"
            seen = (await client.get(where)).json()
            assert seen["status"] == "done" and seen["rows"] == 5 and "result" not in seen
        held = [weakref.ref(run) for run in client.service.made]
        client.service.made.clear()
        await asyncio.sleep(0)
        gc.collect()
        assert [run() for run in held] == [None, None]

    with_client(test)


def test_a_result_is_kept_for_who_does_not_wait():
    async def test(client):
        answer = await client.post(
            "/v1/samples", json={"wait": False, "seed": 3, "spec": {"steps": 6}}
        )
        assert answer.status_code == 202
        where = answer.headers["location"]
        for _ in range(200):
            seen = (await client.get(where)).json()
            if "result" in seen:
                break
            await asyncio.sleep(0.01)
        assert seen["status"] == "done" and seen["done_rows"] == seen["rows"] == 7
        assert seen["result"]["seeds"] == [3]
        arrays = await client.get(where, headers={"accept": TENSORS})
        assert safetensors.numpy.load(arrays.content)["samples"].shape == (1, 1, 8, 8)
        assert (await client.delete(where)).status_code == 200
        error_of(await client.get(where), 404)

    with_client(test)


def test_a_request_that_runs_is_given_up():
    async def test(client):
        client.service.open.clear()
        where = (await client.post("/v1/samples", json={"wait": False})).headers["location"]
        assert (await client.get(where)).json()["status"] == "queued"
        assert (await client.delete(where)).json()["status"] == "cancelled"
        await asyncio.sleep(0.05)
        seen = (await client.get(where)).json()
        assert seen["status"] == "cancelled" and seen["error"]["code"] == "given_up"
        assert not client.service.running

    with_client(test)


def test_who_waits_for_a_request_that_is_deleted_is_told():
    async def test(client):
        client.service.open.clear()
        waiting = asyncio.create_task(client.post("/v1/samples", json={}))
        while not client.service.asked:
            await asyncio.sleep(0.01)
        await client.delete(f"/v1/requests/{client.service.asked[0].id}")
        assert "deleted" in error_of(await waiting, 409)["message"]

    with_client(test)


def test_results_are_kept_within_bytes_and_seconds():
    async def test(client):
        clock = [0.0]
        requests = client.app.state.front.requests
        requests._clock = lambda: clock[0]
        places = []
        for _ in range(4):
            answer = await client.post("/v1/samples", json={"wait": False, "n": 4})
            places.append(answer.headers["location"])
            await asyncio.sleep(0.02)
        statuses = [(await client.get(place)).status_code for place in places]
        assert statuses == [404, 404, 200, 200]
        clock[0] = 11.0
        assert (await client.get(places[3])).status_code == 404
        assert requests._held == 0

    with_client(test, keep_bytes=2 * (4 * 8 * 8 * 4 + SELF), keep_seconds=10.0)


def test_a_result_that_is_too_large_to_keep_is_told_and_pushes_no_other_out():
    async def test(client):
        places = []
        for n in (1, 40):
            answer = await client.post("/v1/samples", json={"wait": False, "n": n})
            places.append(answer.headers["location"])
            await asyncio.sleep(0.02)
        small, large = [(await client.get(place)).json() for place in places]
        assert "result" in small and "wait for them" in large["error"]["message"]
        assert client.app.state.front.requests._held == 8 * 8 * 4 + 2 * SELF

    with_client(test, keep_bytes=8 * 8 * 4 + 2 * SELF)


def test_previews_are_made_for_streams_alone():
    async def test(client):
        for more in ({}, {"wait": False}, {"stream": True}):
            await client.post("/v1/samples", json={"preview": 1} | more)
        assert [asked.preview for asked in client.service.asked] == [0, 0, 1]

    with_client(test)


def test_who_waits_for_a_request_shortens_no_results_time(monkeypatch):
    async def test(client):
        monkeypatch.setattr("diffusion_engine.server.kept.ENDED", 2)
        where = (await client.post("/v1/samples", json={"wait": False})).headers["location"]
        ids = []
        for _ in range(3):
            answer = await client.post("/v1/samples", json={})
            ids.append(answer.headers["x-request-id"])
        assert "result" in (await client.get(where)).json()
        found = [(await client.get(f"/v1/requests/{name}")).status_code for name in ids]
        assert found == [404, 200, 200]

    with_client(test)


def test_what_was_given_to_requests_that_are_left_is_counted_until_they_end():
    async def test(client):
        client.service.open.clear()
        x = safetensors.numpy.save({"x": np.zeros((1, 1, 8, 8), np.float32)})
        left = {"tensors": base64.b64encode(x).decode(), "wait": False}
        answers = [await client.post("/v1/samples", json=left) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 503]
        assert error_of(answers[3], 503)["code"] == "busy"
        client.service.open.set()
        await asyncio.sleep(0.05)
        assert client.app.state.front.counts.bodies == 0
        assert (await client.post("/v1/samples", json=left)).status_code == 202

    with_client(test, max_bodies=1200)


@pytest.mark.parametrize(
    ("error", "status", "code", "retry"),
    [
        (Full("the queue is full of requests", 1.5), 429, "queue_full", "2"),
        (NotReady("a worker is replaced now", 3.0), 503, "not_ready", "3"),
        (NotReady("there will be no worker", None), 503, "not_ready", None),
        (Quarantined("this recipe ended workers", 3600.0), 503, "quarantined", "3600"),
        (TooLarge("it costs more than it may"), 413, "too_large", None),
        (WorkerLost("its workers ended twice"), 502, "worker_lost", None),
        (Failed("the network raised an error"), 422, "failed", None),
        (GivenUp("its deadline cannot be met"), 409, "given_up", None),
        (ValueError("the network has 10 classes"), 422, "unsuitable", None),
    ],
)
def test_what_the_service_refuses(error, status, code, retry):
    async def test(client):
        client.service.refuses = error
        answer = await client.post("/v1/samples", json={})
        said = error_of(answer, status)
        assert (said["code"], said["message"]) == (code, str(error))
        assert answer.headers.get("retry-after") == retry

    with_client(test)


def test_a_full_queue():
    async def test(client):
        client.service.open.clear()
        first = asyncio.create_task(client.post("/v1/samples", json={}))
        while not client.service.running:
            await asyncio.sleep(0.01)
        answer = await client.post("/v1/samples", json={})
        error_of(answer, 429)
        assert answer.headers["retry-after"] == "2"
        client.service.open.set()
        assert (await first).status_code == 200

    with_client(test, lambda: FakeService(most=1))


def test_before_the_service_has_started():
    async def test(client):
        for method, path in (
            ("GET", "/readyz"),
            ("GET", "/health"),
            ("GET", "/v1/models"),
            ("POST", "/v1/samples"),
        ):
            answer = await client.request(method, path, json={} if method == "POST" else None)
            error_of(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1
        for path in ("/livez", "/version", "/metrics"):
            assert (await client.get(path)).status_code == 200
        await client.service.start()
        assert (await client.get("/readyz")).json() == {"status": "ready"}

    with_client(test, started=False)


def test_models_are_listed_and_found():
    async def test(client):
        listed = (await client.get("/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["field", "digits"]
        digits = listed["data"][1]
        assert digits["shape"] == [1, 8, 8] and digits["labels"] == ["nought"]
        assert (await client.get("/v1/models/digits")).json() == digits
        assert "digits" in error_of(await client.get("/v1/models/other"), 404)["message"]

    with_client(test, both, default_model="field", labels={"digits": ["nought"]}, **BOTH)


def test_another_path_or_method():
    async def test(client):
        error_of(await client.get("/v1/nothing"), 404)
        answer = await client.put("/v1/samples", json={})
        error_of(answer, 405)
        assert answer.headers["allow"] == "POST"

    with_client(test)


def test_a_bug_is_an_answer_and_a_line_in_the_log(caplog):
    async def test(client):
        client.service.refuses = KeyError("/a/path/of/this/machine")
        answer = await client.post("/v1/samples", json={})
        said = error_of(answer, 500)
        assert "path" not in said["message"]
        assert answer.headers["x-request-id"] in caplog.text

    with_client(test)


def test_a_request_of_another_key_is_not_there(tmp_path):
    file = tmp_path / "keys"
    file.write_text("first-key-0123456789\nsecond-key-0123456789\n")

    async def test(client):
        first, second = ({"authorization": f"Bearer {key}"} for key in file.read_text().split())
        where = (await client.post("/v1/samples", json={"wait": False}, headers=first)).headers[
            "location"
        ]
        assert (await client.get(where, headers=first)).status_code == 200
        for method in ("GET", "DELETE"):
            error_of(await client.request(method, where, headers=second), 404)

    with_client(test, key_file=file)


def test_the_app_ends_with_its_service():
    async def run():
        async with served() as client:
            await client.service.close(0.0)
            error_of(await client.post("/v1/samples", json={}), 503)

    asyncio.run(run())
