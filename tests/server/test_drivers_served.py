"""Drivers over HTTP: a Spec names them, an answer holds their reports, and what they may cost has bounds."""

import asyncio
import io
import json

import numpy as np
import pytest
import worker_cases as cases
from server_cases import with_client

from diffusion_engine import Sampler
from diffusion_engine.workers.inprocess import InProcess

NPZ = {"accept": "application/x-npz"}
ADAPTIVE = {"name": "adaptive", "options": {"rtol": 0.02, "atol": 0.02}}


def spec(driver, **more):
    return {"solver": "dpmpp_2m", "steps": 4, "driver": driver, **more}


def service():
    return InProcess(cases.network(), 4, batch="fixed")


@pytest.mark.parametrize("driver", [ADAPTIVE, "dpm_adaptive", "restart"], ids=str)
def test_the_samples_of_a_driver(driver):
    body = {"model": "tiny", "spec": spec(driver), "seeds": [3, 8, 9], "condition": [1, 2, 3]}

    async def test(client):
        answer = await client.post("/v1/samples", json=body, headers=NPZ)
        assert answer.status_code == 200, answer.text
        with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
            made = {name: arrays[name] for name in arrays.files}
        own = Sampler(cases.network(), "dpmpp_2m", 4, driver=driver)
        result = await asyncio.to_thread(own.sample, seeds=[3, 8, 9], condition=[1, 2, 3])
        assert np.array_equal(made["samples"], result.samples.numpy())
        recipe, about = (json.loads(str(made[name])) for name in ("recipe", "about"))
        assert about.get("reports") == result.reports
        again = await asyncio.to_thread(Sampler.replay, cases.network(), recipe)
        assert np.array_equal(again.samples.numpy(), made["samples"])

    with_client(test, service)


@pytest.mark.parametrize(
    ("driver", "sentence"),
    [
        ("nobody", "driver='nobody': choose adaptive"),
        ("os:system", "driver='os:system': choose adaptive"),
        ({"name": "adaptive", "options": {"rtol": 0}}, "a tolerance is a finite number above 0"),
        ({"name": "adaptive", "options": {"tol": 1}}, "takes no tol"),
        ({"name": "adaptive", "option": {}}, "option"),
        ({"name": "adaptive", "options": {"h_init": 10**9}}, "an option is 1000000000, which is"),
        ({"name": "restart", "options": {"intervals": [[0.1, 0.6, 2, 3]] * 30}}, "more than 64"),
        ({"name": "restart", "options": {"intervals": [[0.1, 0.6, 90, 90]]}}, "a plan may have"),
        ({"name": "predictor_corrector", "options": {"steps": 1000}}, "16000 rows"),
        ({"name": "multidiffusion", "options": {"canvas": [400, 400]}}, "is not served"),
        (
            {"name": "dps", "options": {"operator": {"name": "inpainting", "mask": "/etc/passwd"}}},
            "mask='/etc/passwd': give [*pixel]",
        ),
        ({"name": "ddrm", "options": {}}, "is not served"),
        ({"name": "daps", "options": {}}, "is not served"),
        ({"name": "paradigms", "options": {"across": True}}, "a server is one process"),
        (
            {"name": "mmps", "options": {"operator": "super_resolution", "iterations": 100}},
            "give at most 64",
        ),
        (
            {"name": "parataa", "options": {"history": 500}},
            "differences are a whole number, 1 to 16",
        ),
    ],
    ids=str,
)
def test_what_no_worker_is_asked(driver, sentence):
    async def test(client):
        body = {"model": "tiny", "spec": spec(driver, steps=16)}
        answer = await client.post("/v1/samples", json=body, headers=NPZ)
        assert answer.status_code == 422
        assert sentence in answer.json()["error"]["message"]

    with_client(test, service)


def test_a_limit_of_calls_is_the_requests_own():
    few = {"name": "adaptive", "options": {"max_calls": 3}}

    async def test(client):
        bad, good = await asyncio.gather(
            client.post("/v1/samples", json={"model": "tiny", "spec": spec(few)}, headers=NPZ),
            client.post("/v1/samples", json={"model": "tiny", "spec": spec(ADAPTIVE)}, headers=NPZ),
        )
        assert good.status_code == 200
        assert bad.status_code == 422 and "max_calls=3" in bad.json()["error"]["message"]

    with_client(test, service)
