"""What a replica tells Serve, without a cluster."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import httpx
import pytest
from optional import needs

from diffusion_engine.server.settings import Settings

needs("ray.serve")

from diffusion_engine.ray import serve  # noqa: E402
from diffusion_engine.ray.scaling import EACH, WANTED, by_work  # noqa: E402

SETTINGS = {"models": {"tiny": "ray_cases:slow"}, "capacity": 2, "batch": "fixed", "drain": 20.0}
ASKED = {"model": "tiny", "spec": {"solver": "ddim", "steps": 8}, "condition": [1], "seeds": [1]}


@asynccontextmanager
async def replica():
    made = serve.Replica.__new__(serve.Replica)
    await made.__init__(Settings(**SETTINGS), "cpu", 1.0)
    transport = httpx.ASGITransport(serve.Replica.here)
    try:
        how = {"base_url": "http://127.0.0.1", "headers": {"accept": "application/x-npz"}}
        async with asyncio.timeout(60), httpx.AsyncClient(transport=transport, **how) as client:
            yield made, client
    finally:
        await made.end()


def context(wanted, each=(), queued=0.0):
    told = {WANTED: dict(enumerate(wanted)), EACH: dict(enumerate(each))}
    return SimpleNamespace(
        aggregated_metrics=told, total_queued_requests=queued, target_num_replicas=3
    )


@pytest.mark.parametrize(
    ("wanted", "each", "queued", "replicas"),
    [
        ((0.0, 0.0), (0.0, 0.0), 0.0, 1), ((0.4, 0.5), (0.1, 0.1), 0.0, 1), ((0.6, 0.5), (0.1, 0.1), 0.0, 2),
        ((1.0, 1.0), (0.1, 0.3), 20.0, 6), ((), (), 5.0, 3),
    ],
)  # fmt: skip
def test_replicas_follow_the_work_that_waits(wanted, each, queued, replicas):
    assert by_work(context(wanted, each, queued)) == (replicas, {})


def test_what_a_replica_holds_is_told_in_replicas():
    async def run():
        async with replica() as (made, client):
            before = made.record_autoscaling_stats()
            asked = [asyncio.create_task(client.post("/v1/samples", json=ASKED)) for _ in range(6)]
            while len(made._front.requests.open) < 6:
                await asyncio.sleep(0.01)
            within = made.record_autoscaling_stats()
            answers = await asyncio.gather(*asked)
            return before, within, made.record_autoscaling_stats(), answers

    before, within, after, answers = asyncio.run(run())
    assert [a.status_code for a in answers] == [200] * 6
    assert before == after == {WANTED: 0.0, EACH: 0.0}
    # 6 requests of 8 calls of 0.05 s, of which at most two share one.
    assert within[WANTED] > 0.8 and within[EACH] == pytest.approx(within[WANTED] / 6)


def test_a_replica_whose_engine_has_ended_is_not_healthy():
    async def run():
        async with replica() as (made, client):
            made.check_health()
            made._service.engine.close()
            with pytest.raises(RuntimeError, match="closed"):
                made.check_health()
            return (await client.post("/v1/samples", json=ASKED)).status_code

    assert asyncio.run(run()) == 503


def test_what_nobody_waits_for_ends_before_the_replica():
    async def run():
        async with replica() as (made, client):
            for seed in range(3):
                said = await client.post(
                    "/v1/samples", json=ASKED | {"seeds": [seed], "wait": False}
                )
                assert said.status_code == 202
            await made.end()
            found = made._service.engine.snapshot()
            unknown = await client.get("/v1/requests/0123")
            return found, unknown

    found, unknown = asyncio.run(run())
    assert found["done"] == 4 and not found["cancelled"]  # and the sample that warms it
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"].startswith("this replica knows no request '0123'")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": "0123456789abcdef"}, "would lie in Ray's store: give key_file"),
        ({"uds": "/tmp/it"}, "leave it out"),
    ],
)
def test_settings_that_do_not_suit_a_cluster_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        serve.application(Settings(**SETTINGS | changed))
    with pytest.raises(ValueError, match="at least 2 replicas"):
        serve.application(Settings(**SETTINGS), replicas=2, most=1)
