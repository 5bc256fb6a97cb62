"""Samples as the answer that a client accepts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ..workers.messages import About, Made, Told
from . import pictures
from .kept import Entry
from .pictures import NPZ, PNG, SAFETENSORS
from .refused import Refused
from .waiting import Message

T = TypeVar("T")
SMALL = (
    1 << 14
)  # values, of which PNGs take a millisecond: no longer than a thread's turn costs under load
FORMS = {
    "application/json": PNG,
    "*/*": PNG,
    "application/*": PNG,
    NPZ: NPZ,
    SAFETENSORS: SAFETENSORS,
}
BESIDE = ("text/event-stream", "text/*")  # say nothing of the samples' form


def accepted(header: str | None, about: About) -> str:
    """The form of samples that an Accept header asks for. Raises Refused."""
    wanted = [part.partition(";")[0].strip().lower() for part in (header or "*/*").split(",")]
    forms = [FORMS[name] for name in wanted if name in FORMS]
    if not forms and not set(wanted) <= {*BESIDE}:
        known = ", ".join((PNG, NPZ, SAFETENSORS))
        raise Refused(
            406, f"Accept is {(header or '')[:80]!r}; there are {known}", "form", "accept"
        )
    form = forms[0] if forms else PNG
    if form == PNG and not pictures.is_picture(about.decoded):
        raise Refused(
            406,
            f"samples of {about.name!r} are {about.decoded}, and a PNG holds 1 or 3 channels; ask for them "
            f"with Accept: {NPZ}, or {SAFETENSORS}",
            "form", "accept",
        )  # fmt: skip
    return form


def described(entry: Entry, made: Made) -> dict[str, Any]:
    """What is said of samples beside them."""
    about = {
        "id": entry.id, "object": "samples", "model": entry.about.name, "created": entry.created,
        "seeds": made.seeds, "nfe": made.nfe, "evaluations": made.evaluations, "finite": made.finite,
        "seconds": made.seconds, "queued": made.queued,
    }  # fmt: skip
    return about if made.reports is None else about | {"reports": made.reports}


def whole(entry: Entry, made: Made, form: str) -> dict[str, Any]:
    """As JSON: PNGs with their recipes, or a file of arrays in base64."""
    about = described(entry, made)
    if form == PNG:
        pairs = zip(made.seeds, pictures.pngs(made), strict=True)
        samples = [{"seed": seed, "png": pictures.text(content)} for seed, content in pairs]
        return about | {"samples": samples, "recipe": made.recipe}
    name, write = ("npz", pictures.npz) if form == NPZ else ("safetensors", pictures.tensors)
    return about | {name: pictures.text(write(made, about)), "recipe": made.recipe}


def _content(entry: Entry, made: Made, form: str) -> bytes:
    if form == PNG:
        return msgspec.json.encode(whole(entry, made, form))
    write = pictures.npz if form == NPZ else pictures.tensors
    return write(made, described(entry, made))


async def aside(size: int, work: Callable[..., T], *given: Any) -> T:
    """What a function returns, which takes long for so many values and then runs beside the loop."""
    return await run_in_threadpool(work, *given) if size > SMALL else work(*given)


async def packed(entry: Entry, made: Made, form: str) -> Response:
    """The answer that holds samples."""
    content = await aside(made.samples.size, _content, entry, made, form)
    return Response(content, media_type=form)


async def told(entry: Entry, event: Told, form: str) -> list[Message]:
    """What a stream says of an event; nothing of the end, which has messages of its own."""
    if event.kind in ("done", "failed", "cancelled"):
        return []
    about: dict[str, Any] = {"id": entry.id}
    if event.kind == "queued":
        about = entry.described()
    elif event.kind in ("row", "preview"):
        about |= {"sample": event.sample, "row": event.row, "rows": event.rows}
    if event.denoised is not None:
        size = event.denoised.size
        about |= await aside(size, _preview, event.denoised, form)
    return [(event.kind, about)]


def _preview(denoised: Any, form: str) -> dict[str, str]:
    if form == PNG:
        return {"png": pictures.text(pictures.png(denoised))}
    name, content = pictures.alone(denoised, form)
    return {name: pictures.text(content)}


async def done(entry: Entry, made: Made, form: str) -> list[Message]:
    """The last message of a stream."""
    return [("done", await aside(made.samples.size, whole, entry, made, form))]
