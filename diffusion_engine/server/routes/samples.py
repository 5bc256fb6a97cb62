"""`POST /v1/samples`: samples of any model."""

from __future__ import annotations

from functools import partial

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ...workers.messages import About, Asked
from .. import bodies, packing, schema
from ..asked import Body, arrays, wrong
from ..asked import asked as asked_of
from ..front import Front, front_of, id_of, owner_of
from ..packing import aside
from ..refused import JSON, Refused
from ..waiting import Stream, result, taken

router = APIRouter()


@router.post("/v1/samples", **schema.samples(Body))
async def samples(request: Request) -> Response:
    """Samples of a model: in JSON as PNGs that hold their recipes, or as npz or safetensors by Accept."""
    front = front_of(request)
    body, asked, about, form = await _read(front, request)
    if body.wait and not body.stream:
        entry, made = await result(front, asked, about, request)
        return await packing.packed(entry, made, form)
    entry = await taken(front, asked, about, request)
    if body.stream:
        tell, finish = (
            partial(packing.told, entry, form=form),
            partial(packing.done, entry, form=form),
        )
        return Stream(front, entry, tell, finish)
    front.follow(entry)
    where = {"location": f"/v1/requests/{entry.id}"}
    return Response(msgspec.json.encode(entry.described()), 202, where, media_type=JSON)


async def _read(front: Front, request: Request) -> tuple[Body, Asked, About, str]:
    """The body, what it asks of which model, and the form of the answer. Raises Refused."""
    front.ready()
    given = await bodies.read(request, front.settings.max_samples)
    try:
        body = Body.model_validate(given)
    except ValueError as error:
        raise wrong(error) from None
    if body.stream and not body.wait:
        raise Refused(422, "stream and wait=false are given; a stream waits: leave one out")
    about = front.model(body.model)
    form = packing.accepted(request.headers.get("accept"), about)
    tensors = await aside(len(body.tensors or ""), arrays, body)
    made = asked_of(body, about, front.settings, id_of(request), owner_of(request), tensors)
    return body, made, about, form
