"""The shipped network behind the routes: the bits of a Sampler, and pictures that are made again."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from server_cases import events_of, with_client

from diffusion_engine import Sampler
from diffusion_engine.server.pictures import METADATA_KEY, png
from diffusion_engine.workers.inprocess import InProcess
from diffusion_engine.zoo import load_network

TENSORS = {"accept": "application/vnd.safetensors"}


@pytest.fixture(scope="module")
def network():
    return load_network("digits")


@pytest.fixture
def digits(network):
    return lambda: InProcess(network, 4, threads=1, batch="fixed")


def samples_of(answer):
    assert answer.status_code == 200, answer.text
    return safetensors.numpy.load(answer.content)["samples"]


def test_a_picture_is_made_again_from_the_recipe_in_it(network, digits):
    async def test(client):
        body = {
            "spec": {"solver": "euler_ancestral", "steps": 3},
            "condition": [3, 7],
            "guidance": [1.0, 2.5],
        }
        arrays = samples_of(
            await client.post("/v1/samples", json=body | {"seed": 9}, headers=TENSORS)
        )
        answer = (await client.post("/v1/samples", json=body | {"seed": 9})).json()
        for i, sample in enumerate(answer["samples"]):
            content = base64.b64decode(sample["png"])
            with Image.open(io.BytesIO(content)) as image:
                recipe = json.loads(image.text[METADATA_KEY])
            again = await asyncio.to_thread(Sampler.replay, network, recipe)
            assert np.array_equal(again.samples[0].numpy(), arrays[i])
            assert png(again.samples[0].numpy(), recipe) == content

    with_client(test, digits)


def test_what_is_streamed_is_what_is_answered_whatever_shares_the_batch(digits):
    async def test(client):
        spec = {"spec": {"solver": "unipc", "steps": 4}, "condition": 5, "seed": 1}
        alone = samples_of(await client.post("/v1/samples", json=spec, headers=TENSORS))
        others = [client.post("/v1/samples", json={"n": 2, "spec": {"steps": 3}}) for _ in range(3)]
        streamed = client.post(
            "/v1/samples", json=spec | {"stream": True, "preview": 2}, headers=TENSORS
        )
        made, *rest = await asyncio.gather(streamed, *others)
        assert [answer.status_code for answer in rest] == [200] * 3
        events = events_of(made.text)
        last = safetensors.numpy.load(base64.b64decode(events[-1][1]["safetensors"]))
        assert np.array_equal(last["samples"], alone)
        shown = next(data for kind, data in events if kind == "preview")
        preview = safetensors.numpy.load(base64.b64decode(shown["safetensors"]))["denoised"]
        assert preview.shape == (1, 32, 32) and np.isfinite(preview).all()

    with_client(test, digits)


def test_images_that_a_client_gives(network, digits):
    x = torch.linspace(-1, 1, 1024).reshape(1, 1, 32, 32)
    mask = torch.zeros_like(x)
    mask[..., 16:] = 1.0
    given = safetensors.numpy.save({"x": x.numpy(), "mask": mask.numpy(), "known": x.numpy()})

    async def test(client):
        body = {"tensors": base64.b64encode(given).decode(), "seeds": [4], "condition": 2}
        body["spec"] = {"solver": "ddim", "steps": 4, "start": 0.6}
        npz = {"accept": "application/x-npz"}
        answer = await client.post("/v1/samples", json=body, headers=npz)
        with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
            made, recipe = arrays["samples"], json.loads(str(arrays["recipe"]))
        again = Sampler.replay(network, recipe, x=x, mask=mask, known=x)
        assert np.array_equal(made, again.samples.numpy())
        assert np.array_equal(made[..., :16], x.numpy()[..., :16])

    with_client(test, digits)
