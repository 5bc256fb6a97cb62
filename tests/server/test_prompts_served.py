"""Prompts over HTTP: in which bodies they stand, what is refused before a worker sees it, and a text network
that draws them."""

import asyncio
import base64
import io
import json

import pytest
from fake_service import FakeService, about
from PIL import Image
from server_cases import error_of, events_of, with_client
from text_cases import drawn

from diffusion_engine import Sampler
from diffusion_engine.checks import LONGEST
from diffusion_engine.server import pictures
from diffusion_engine.workers.errors import ServiceError
from diffusion_engine.workers.inprocess import InProcess

IMAGES = "/v1/images/generations"
MODELS = {"models": {"words": "a:b", "digits": "digits"}}
HEART, CAT = "a red heart", "a cat"


def services():
    return FakeService(about("words", (3, 8, 8), 0, text=True, guidance=3.0), about())


@pytest.mark.parametrize(
    "body, condition, negative",
    [
        ({"condition": HEART, "n": 2, "negative": CAT}, [HEART] * 2, [CAT] * 2),
        ({"condition": [HEART, CAT]}, [HEART, CAT], None),
        ({"negative": [CAT, HEART], "condition": HEART}, [HEART] * 2, [CAT, HEART]),
        ({"model": "digits", "condition": 3, "negative": 4}, [3], [4]),
        ({"condition": "é" * LONGEST}, ["é" * LONGEST], None),
        ({}, None, None),
    ],
)
def test_a_condition_is_a_prompt_or_one_a_sample(body, condition, negative):
    async def test(client):
        assert (await client.post("/v1/samples", json=body)).status_code == 200
        (asked,) = client.service.asked
        assert (asked.condition, asked.negative) == (condition, negative)
        assert len(asked.seeds) == len(condition or [1])

    with_client(test, services, **MODELS)


def test_prompts_are_composed():
    async def test(client):
        body = {"n": 2, "compose": [[CAT, 1.0], [["blue", "red"], 0.5]]}
        assert (await client.post("/v1/samples", json=body)).status_code == 200
        assert client.service.asked[0].compose == [([CAT, CAT], 1.0), (["blue", "red"], 0.5)]

    with_client(test, services, **MODELS)


LONG = "a" * 10_000
REFUSED = [
    ("/v1/samples", {"condition": ""}, "condition is an empty text"),
    ("/v1/samples", {"condition": [HEART, "  "]}, "condition is an empty text"),
    ("/v1/samples", {"condition": LONG}, "condition has 10000 characters; a prompt has 2000"),
    ("/v1/samples", {"condition": HEART, "negative": LONG}, "negative has 10000 characters"),
    ("/v1/samples", {"condition": 2.5}, "a class is a whole number below 2^31, and a prompt a text"),
    ("/v1/samples", {"condition": [HEART, 3]}, "condition holds classes and prompts; give either"),
    ("/v1/samples", {"condition": 3}, "condition=3: 'words' has no classes; give a prompt"),
    ("/v1/samples", {"model": "digits", "condition": HEART}, "'digits' reads none; give a class, 0 to 9"),
    ("/v1/samples", {"model": "digits", "compose": [[CAT, 1.0]]}, "compose is a prompt and the model"),
    ("/v1/samples", {"condition": [HEART] * 2, "n": 3}, "2 entries for 3 samples in condition"),
    (IMAGES, {"prompt": ""}, "prompt is an empty text; write what it shall be"),
    (IMAGES, {"prompt": LONG}, "prompt has 10000 characters"),
    (IMAGES, {"prompt": HEART, "negative_prompt": LONG}, "negative_prompt has 10000 characters"),
    (IMAGES, {"prompt": HEART, "model": "digits"}, "of 'digits' it is a class, 0 to 9"),
    (IMAGES, {"prompt": "3", "model": "digits", "negative_prompt": CAT}, "'digits' reads no text"),
]  # fmt: skip


def test_what_is_refused_is_told_and_reaches_no_worker():
    async def test(client):
        for path, body, said in REFUSED:
            assert said in error_of(await client.post(path, json=body), 422)["message"], body
        assert not client.service.asked

    with_client(test, services, **MODELS)


def test_a_prompt_in_the_shape_of_openai():
    async def test(client):
        given = {"prompt": HEART, "n": 2, "seed": 5}
        for more in ({"negative_prompt": ""}, {"negative_prompt": CAT, "guidance_scale": 1.5}):
            assert (await client.post(IMAGES, json=given | more)).status_code == 200
        asked = client.service.asked
        assert [a.condition for a in asked] == [[HEART] * 2] * 2
        assert [(a.negative, a.guidance) for a in asked] == [(None, 3.0), ([CAT] * 2, 1.5)]
        listed = (await client.get("/v1/models")).json()["data"]
        assert [(one["id"], one["text"]) for one in listed] == [("words", True), ("digits", False)]

    with_client(test, services, **MODELS)


def test_what_ships_has_a_picture():
    async def test(client):
        listed = [one["picture"] for one in (await client.get("/v1/models")).json()["data"]]
        answer = await client.get("/v1/models/digits/picture")
        assert answer.headers["content-type"] == "image/png"
        with Image.open(io.BytesIO(answer.content)) as image:
            assert listed == [None, [*image.size]]
            assert json.loads(image.text["diffusion_engine"])["network"] == "digits"
        same = {"if-none-match": answer.headers["etag"]}
        again = await client.get("/v1/models/digits/picture", headers=same)
        assert (again.status_code, again.content) == (304, b"")
        for name, said in (("words", "there is no picture"), ("nobody", "there is no model")):
            assert said in error_of(await client.get(f"/v1/models/{name}/picture"), 404)["message"]

    with_client(test, services, **MODELS)


def words():
    return InProcess(drawn(name="words"), 4, batch="fixed")


def test_a_text_network_draws_and_its_pictures_are_made_again():
    body = {"condition": [HEART, CAT], "negative": "blue", "guidance": 2.0, "seed": 3}

    async def test(client):
        (about,) = (await client.get("/v1/models")).json()["data"]
        assert (about["text"], about["classes"], about["guidance"]) == (True, 0, 3.0)
        assert (about["shape"], about["decoded"]) == ([2, 4, 4], [3, 8, 8])
        answer = await client.post("/v1/samples", json=body)
        assert answer.status_code == 200, answer.text
        for i, sample in enumerate(answer.json()["samples"]):
            content = base64.b64decode(sample["png"])
            with Image.open(io.BytesIO(content)) as image:
                recipe = json.loads(image.text["diffusion_engine"])
            assert (recipe["condition"], recipe["negative"]) == ([[HEART, CAT][i]], ["blue"])
            again = await asyncio.to_thread(Sampler.replay, drawn(name="words"), recipe)
            assert pictures.png(again.samples[0].numpy(), recipe) == content
        plain = await client.post("/v1/samples", json=body | {"negative": None})
        assert plain.json()["samples"][0]["png"] != answer.json()["samples"][0]["png"]

    with_client(test, words, models={"words": "a:b"})


def test_previews_of_latents_are_their_linear_map():
    def sizes(events, key):
        for data in (data for _, data in events if key in data):
            with Image.open(io.BytesIO(base64.b64decode(data[key]))) as image:
                yield image.size

    async def test(client):
        body = {"condition": HEART, "seed": 3, "preview": 2, "stream": True}
        seen = events_of((await client.post("/v1/samples", json=body)).text)
        assert [*sizes(seen, "png")] == [(4, 4), (4, 4)]
        body = {"prompt": HEART, "seed": 3, "stream": True, "partial_images": 2}
        seen = events_of((await client.post(IMAGES, json=body)).text)
        assert [*sizes(seen, "b64_json")] == [(8, 8)] * 3  # as large as they say

    with_client(test, words, models={"words": "a:b"})


def test_without_the_encoder_the_server_says_what_to_install():
    def missing(prompts):
        raise ImportError("it needs a package: pip install 'diffusion-engine[text]'")

    network = drawn(name="words")
    network = network.with_module(network.module, text=missing)

    async def test():
        with pytest.raises(
            ServiceError, match=r"'words' reads prompts, .*diffusion-engine\[text\]"
        ):
            await InProcess(network, 4).start()

    asyncio.run(test())
