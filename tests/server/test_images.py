"""Pictures in the shape of OpenAI's API, and its own client."""

import base64
import io
import json

import numpy as np
import pytest
from fake_service import FakeService, about
from optional import Package
from PIL import Image
from server_cases import KEY, error_of, events_of, on_socket, with_client

from diffusion_engine.server import pictures

openai = Package("openai")

PATH = "/v1/images/generations"


def services():
    return FakeService(about(), about("field", (5,), 0, False), about("plain", (3, 4, 6), 0, False))


MODELS = {"models": {"digits": "digits", "field": "a:b", "plain": "c:d"}}


def test_a_prompt_names_a_class():
    async def test(client):
        prompts = {"3": 3, " Three ": 3, "Nought": 0, "zero": 0, "9": 9, "": None}
        for prompt in prompts:
            answer = await client.post(PATH, json={"prompt": prompt, "n": 2, "seed": 5})
            assert answer.status_code == 200, answer.text
        given = [asked.condition for asked in client.service.asked]
        assert given == [None if c is None else [c, c] for c in prompts.values()]
        assert client.service.asked[0].seeds == [5, 6]

    with_client(test, services, labels={"digits": ["Nought"]}, **MODELS)


def test_what_is_asked_reaches_the_spec():
    async def test(client):
        body = {"prompt": "1", "num_inference_steps": 7, "guidance_scale": 2.5, "solver": "heun"}
        more = {"size": "8x8", "response_format": "b64_json", "quality": "auto", "user": "somebody"}
        answer = (await client.post(PATH, json=body | more)).json()
        asked = client.service.asked[0]
        assert asked.spec == {"solver": {"name": "heun", "options": {}}, "steps": 7}
        assert asked.guidance == 2.5
        assert (answer["size"], answer["output_format"]) == ("8x8", "png")
        with Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))) as image:
            assert image.size == (8, 8)

    with_client(test, services, **MODELS)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "eleven"}, "prompt"),
        ({"prompt": "10"}, "prompt"),
        ({"prompt": "-1"}, "prompt"),
        ({"prompt": "a cat"}, "prompt"),
        ({"prompt": "cat", "model": "plain"}, "prompt"),
        ({"prompt": "1", "size": "64x64"}, "size"),
        ({"prompt": "1", "response_format": "url"}, "response_format"),
        ({"prompt": "1", "negative_prompt": "blurry"}, "negative_prompt"),
        ({"prompt": "1", "partial_images": 1}, "partial_images"),
        ({"prompt": "1", "n": 11}, None),
        ({"prompt": "1", "n": True}, None),
        ({"prompt": "1", "num_inference_steps": 201}, None),
        ({"prompt": "1", "guidance_scale": 20.1}, None),
        ({"prompt": "1", "background": "transparent"}, None),
        ({"prompt": "1", "style": "vivid"}, None),
        ({"prompt": None}, None),
        ({}, None),
    ],
)
def test_what_cannot_be_is_refused(body, param):
    async def test(client):
        assert error_of(await client.post(PATH, json=body), 422)["param"] == param
        assert not client.service.asked

    with_client(test, services, **MODELS)


def test_samples_that_are_no_pictures():
    async def test(client):
        said = error_of(await client.post(PATH, json={"prompt": "", "model": "field"}), 422)
        assert "/v1/samples" in said["message"]
        wide = (
            await client.post(PATH, json={"prompt": "", "model": "plain", "size": "6x4"})
        ).json()
        assert wide["size"] == "6x4"

    with_client(test, services, **MODELS)


@pytest.mark.parametrize("steps", [8, 5])  # of the second the last row is one of the previews
@pytest.mark.parametrize("partial", [0, 1, 2, 3])
def test_partial_pictures_come_in_order(partial, steps):
    async def test(client):
        body = {"prompt": "2", "stream": True, "partial_images": partial, "n": 2}
        answer = await client.post(PATH, json=body | {"num_inference_steps": steps})
        events = events_of(answer.text)
        kinds = [kind for kind, _ in events]
        names = ["image_generation.partial_image"] * 2 * partial
        assert kinds == names + ["image_generation.completed"] * 2
        assert all(data["type"] == kind for kind, data in events)
        for sample in range(2):
            own = [data for _, data in events if data["sample"] == sample]
            assert [data["partial_image_index"] for data in own[:-1]] == list(range(partial))
            assert "usage" in own[-1] and len({data["b64_json"] for data in own}) == partial + 1

    with_client(test, services, **MODELS)


def test_the_client_of_openai_draws():
    with (
        on_socket(key=KEY) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["digits"]
        assert client.models.retrieve("digits").owned_by == "diffusion_engine"
        made = client.images.generate(model="digits", prompt="seven", n=2, extra_body={"seed": 3})
        contents = [base64.b64decode(one.b64_json) for one in made.data]
        assert len(contents) == 2 and all(content[1:4] == b"PNG" for content in contents)
        stream = client.images.generate(prompt="seven", stream=True, partial_images=2)
        kinds = [type(event).__name__ for event in stream]
        assert kinds == ["ImageGenPartialImageEvent"] * 2 + ["ImageGenCompletedEvent"]
        with pytest.raises(openai.UnprocessableEntityError, match="prompt") as refused:
            client.images.generate(model="digits", prompt="a cat")
        assert refused.value.param == "prompt"
    with on_socket(key=KEY) as address:
        stranger = openai.OpenAI(base_url=f"{address}/v1", api_key="another", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 32, 32), (3, 5, 7), (3, 1, 300), (1, 300, 1)])
def test_a_png_holds_the_pixels_and_the_recipe(shape):
    """As Pillow reads it, which checks every chunk."""
    sample = np.random.default_rng(0).uniform(-1.2, 1.2, shape).astype(np.float32)
    sample.flat[0] = np.nan
    recipe = {"seeds": [2**64 - 1], "network": "zürich"}
    with Image.open(io.BytesIO(pictures.png(sample, recipe))) as image:
        found, said = np.asarray(image), json.loads(image.text["diffusion_engine"])
    wanted = np.nan_to_num(np.rint(sample * 127.5 + 127.5), nan=255.0).clip(0, 255).astype(np.uint8)
    assert np.array_equal(found, wanted[0] if shape[0] == 1 else wanted.transpose(1, 2, 0))
    assert said == recipe
