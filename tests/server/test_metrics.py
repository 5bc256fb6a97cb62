"""What Prometheus reads."""

import asyncio
import re

import pytest
from fake_service import FakeService
from prometheus_client.parser import text_string_to_metric_families
from server_cases import KEY, WITH_KEY, error_of, with_client


def read(text):
    """{(name, labels): value}, of a text that Prometheus's own parser takes."""
    families = list(text_string_to_metric_families(text))
    samples = [s for family in families for s in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


def test_what_the_service_does_is_counted():
    async def test(client):
        for body in ({"seed": 918273645}, {"n": 0}, {"n": 2, "wait": False}):
            await client.post("/v1/samples", json=body)
        await client.get("/nowhere/918273645")
        await asyncio.sleep(0.05)
        answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = read(answer.text)
        worker, prefix = (("worker", "0"),), "diffusion_engine_"
        assert found[prefix + "requests_running", ()] == 0
        assert found[prefix + "samples_total", ()] == 3
        assert found[prefix + "ready", ()] == 1
        assert found[prefix + "requests_total", (("finished_reason", "done"),)] == 3
        assert found[prefix + "worker_restarts_total", (("reason", "died"),)] == 1
        assert found[prefix + "steps_total", worker] == 7
        assert found[prefix + "batch_occupancy_ratio", worker] == 0.25
        route = (("method", "POST"), ("route", "/v1/samples"))
        assert found[prefix + "http_requests_total", (*route, ("status", "200"))] == 1
        assert found[prefix + "http_requests_total", (*route, ("status", "422"))] == 1
        none = (("method", "GET"), ("route", "none"), ("status", "404"))
        assert found[prefix + "http_requests_total", none] == 1
        assert "918273645" not in answer.text
        own = {name for name, _ in found if not name.startswith("process_")}
        assert all(name.startswith(prefix) for name in own)

    with_client(test)


def test_a_histogram_adds_up():
    async def test(client):
        found = read((await client.get("/metrics")).text)
        name = "diffusion_engine_step_time_seconds"
        buckets = {
            dict(labels)["le"]: v for (n, labels), v in found.items() if n == f"{name}_bucket"
        }
        assert buckets == {"0.4": 1, "0.8": 3, "+Inf": 4}
        assert found[f"{name}_sum", (("worker", "0"),)] == 2.0
        for body in ({}, {"stream": True}, {"wait": False}):
            await client.post("/v1/samples", json=body)
        await asyncio.sleep(0.05)
        found = read((await client.get("/metrics")).text)
        for name, low, total in (("queue_time", "0.01", 0.03), ("e2e_request_latency", "0.1", 0.3)):
            name = f"diffusion_engine_{name}_seconds"
            assert found[f"{name}_count", ()] == found[f"{name}_bucket", (("le", low),)] == 3
            assert found[f"{name}_bucket", (("le", "0.005"),)] == 0
            assert found[f"{name}_sum", ()] == pytest.approx(total)

    with_client(test)


def test_a_worker_that_does_not_answer_has_no_figures():
    async def test(client):
        seen = client.service.snapshot()
        client.service.snapshot = lambda: seen | {"workers": [{"state": "starting"}]}
        text = (await client.get("/metrics")).text
        assert re.search(r'worker_up\{device="",worker="0"\} 0', text)
        assert "steps_total{" not in text

    with_client(test, FakeService)


def test_metrics_ask_for_the_key():
    async def test(client):
        error_of(await client.get("/metrics"), 401)
        assert (await client.get("/metrics", headers=WITH_KEY)).status_code == 200

    with_client(test, key=KEY)
