"""`POST /v1/images/generations`: pictures in the shape of OpenAI's API. A prompt is what the model is told in
words, or a class where it knows those alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from ... import checks
from ...model import Model
from ...workers.messages import About, Made, Told
from .. import asked, bodies, pictures, schema
from ..asked import Seed, wrong
from ..front import Front, front_of, id_of, owner_of
from ..kept import Entry
from ..packing import aside
from ..refused import JSON, Refused
from ..waiting import Message, Stream, result, taken

router = APIRouter()

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PARTIAL, COMPLETED = "image_generation.partial_image", "image_generation.completed"
# There are no tokens; OpenAI's clients want the numbers.
USAGE = {
    "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}  # fmt: skip


class Images(Model):
    """A request for pictures, with the keys of OpenAI's that mean something here and some more."""

    kind: ClassVar[str] = "request"

    prompt: str = Field(
        max_length=32000,
        description="what is drawn; of a model without text a class, its number or name, or empty",
    )
    model: str | None = Field(None, description="a name of GET /v1/models; the default one")
    n: int | None = Field(None, ge=1, le=10, strict=True, description="pictures, 1 if left out")
    size: str | None = Field(None, max_length=32, description="WIDTHxHEIGHT of the model, or auto")
    response_format: Literal["b64_json", "url"] | None = Field(None, description="b64_json alone")
    output_format: Literal["png"] | None = None
    background: Literal["auto", "opaque"] | None = None
    quality: Literal["auto"] | None = None
    moderation: Literal["auto", "low"] | None = None
    user: str | None = Field(None, max_length=512, description="taken, and not used")
    stream: bool | None = Field(None, strict=True, description="answer with server-sent events")
    partial_images: int | None = Field(None, ge=0, le=3, strict=True, description="of a stream")
    seed: Seed | None = Field(None, description="of the first picture; the next have the next ones")
    num_inference_steps: int | None = Field(None, ge=1, le=200, strict=True)
    guidance_scale: float | None = Field(None, ge=0, le=20, strict=True)
    solver: str | None = Field(None, max_length=64, description="a solver's name")
    negative_prompt: str | None = Field(None, description="what is not drawn, of a model with text")


@router.post("/v1/images/generations", **schema.images(Images))
async def generations(request: Request) -> Response:
    """Pictures of a prompt or a class, in base64, each with the recipe that makes it again."""
    front = front_of(request)
    front.ready()
    given = await bodies.read(request, front.settings.max_samples)
    try:
        body = Images.model_validate(given)
    except ValueError as error:
        raise wrong(error) from None
    about = front.model(body.model)
    _check(body, about)
    given = _asked(body, about, front, request)
    if body.stream:
        entry = await taken(front, given, about, request)
        partial = Partial(entry, body.partial_images or 0)
        return Stream(front, entry, partial.tell, partial.finish)
    entry, samples = await result(front, given, about, request)
    pairs = await aside(samples.samples.size, _pictures, samples)
    content = {"created": entry.created, "data": pairs, "usage": USAGE} | _form(about)
    return Response(msgspec.json.encode(content), media_type=JSON)


def _check(body: Images, about: About) -> None:
    """Raises Refused where the model cannot do what is asked."""
    if not pictures.is_picture(about.decoded):
        raise Refused(
            422,
            f"samples of {about.name!r} are {about.decoded} and no pictures; POST /v1/samples",
            "model",
        )
    if body.response_format == "url":
        raise Refused(
            422, "this server keeps no files; ask for response_format='b64_json'",
            param="response_format",
        )  # fmt: skip
    if body.negative_prompt and not about.text:
        raise Refused(
            422, f"{about.name!r} reads no text, and so no negative; leave negative_prompt out",
            param="negative_prompt",
        )  # fmt: skip
    if body.size not in (None, "auto", size := _form(about)["size"]):
        raise Refused(
            422, f"pictures of {about.name!r} are {size}; ask for that, or auto", param="size"
        )
    if body.partial_images and not body.stream:
        raise Refused(422, "partial_images needs stream=true", param="partial_images")


def _form(about: About) -> dict[str, str]:
    height, width = about.decoded[1:]
    return {"size": f"{width}x{height}", "output_format": "png", "background": "opaque"}


def condition_of(prompt: str, about: About, labels: list[str] | None) -> int | str | None:
    """What a prompt is to a model: its text, or the class that it names. Raises Refused."""
    return _text("prompt", prompt) if about.text else class_of(prompt, about, labels)


def _text(name: str, given: str) -> str:
    try:
        return checks.prompt(name, given)
    except ValueError as error:
        raise wrong(error, name) from None


def class_of(prompt: str, about: About, labels: list[str] | None) -> int | None:
    """The class that a prompt names; None for an empty one. Raises Refused."""
    said = prompt.strip().lower()
    if not said and (about.guided or not about.classes):
        return None
    names = [name.lower() for name in labels or ()]
    if said in names:
        return names.index(said)
    number = int(said) if said.isdecimal() and said.isascii() and len(said) < 9 else -1
    if said in WORDS:
        number = WORDS.index(said)
    if not 0 <= number < about.classes:
        what = f"a class, 0 to {about.classes - 1}, or its name" if about.classes else "left empty"
        raise Refused(
            422, f"prompt={prompt[:80]!r}: of {about.name!r} it is {what}", param="prompt"
        )
    return number


def _asked(body: Images, about: About, front: Front, request: Request) -> Any:
    spec: dict[str, Any] = {}
    if body.solver is not None:
        spec["solver"] = body.solver
    if body.num_inference_steps is not None:
        spec["steps"] = body.num_inference_steps
    partial = body.partial_images or 0
    steps = body.num_inference_steps or int(about.default.get("steps", 20))
    usual, negative = about.guidance if about.text else None, body.negative_prompt or None
    given = {
        "model": about.name, "spec": spec, "n": body.n or 1, "seed": body.seed,
        "guidance": usual if body.guidance_scale is None else body.guidance_scale,
        "condition": condition_of(body.prompt, about, front.settings.labels.get(about.name)),
        "negative": None if negative is None else _text("negative_prompt", negative),
        # A plan has at least as many rows as steps.
        "preview": max(1, steps // (partial + 1)) if partial else 0, "stream": bool(body.stream),
    }  # fmt: skip
    native = asked.Body.model_validate(given)
    return asked.asked(native, about, front.settings, id_of(request), owner_of(request), {})


def _pictures(made: Made) -> list[dict[str, Any]]:
    pairs = zip(made.seeds, pictures.pngs(made), strict=True)
    return [{"b64_json": pictures.text(content), "seed": seed} for seed, content in pairs]


class Partial:
    """The events of a stream of pictures: of each up to `most` partial ones, at even distances."""

    def __init__(self, entry: Entry, most: int) -> None:
        self._entry, self._most = entry, most
        self._sent = [0] * entry.n

    def _event(self, kind: str, content: str, **more: Any) -> Message:
        about: Mapping[str, Any] = {
            "type": kind, "b64_json": content, "created_at": int(time.time()), "quality": "auto",
        }  # fmt: skip
        return kind, {**about, **_form(self._entry.about), **more}

    async def tell(self, told: Told) -> list[Message]:
        if told.denoised is None:
            return []
        sent = self._sent[told.sample]
        if sent == self._most or told.row * (self._most + 1) < (sent + 1) * told.rows:
            return []
        self._sent[told.sample] += 1
        size = self._entry.about.decoded[1:]  # a preview of latents has their own
        content = await aside(math.prod(size), pictures.png, told.denoised, None, size)
        more = {"partial_image_index": sent, "sample": told.sample}
        return [self._event(PARTIAL, pictures.text(content), **more)]

    async def finish(self, made: Made) -> list[Message]:
        each = await aside(made.samples.size, _pictures, made)
        return [
            self._event(COMPLETED, one["b64_json"], usage=USAGE, seed=one["seed"], sample=i)
            for i, one in enumerate(each)
        ]
