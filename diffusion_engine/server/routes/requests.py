"""`GET` and `DELETE /v1/requests/{id}`: what became of a request, and giving it up."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from .. import packing, schema
from ..front import front_of, owner_of
from ..packing import aside
from ..pictures import PNG
from ..refused import JSON

router = APIRouter()


@router.get("/v1/requests/{id}", **schema.requests)
async def look(request: Request, id: str) -> Response:
    """What a request is doing. Of one with wait=false that is done, its samples, in the form of Accept."""
    entry = front_of(request).requests.find(id, owner_of(request))
    about = entry.described()
    if entry.made is not None:
        form = packing.accepted(request.headers.get("accept"), entry.about)
        if form != PNG:
            return await packing.packed(entry, entry.made, form)
        size = entry.made.samples.size
        about["result"] = await aside(size, packing.whole, entry, entry.made, form)
    return Response(msgspec.json.encode(about), media_type=JSON)


@router.delete("/v1/requests/{id}", **schema.requests)
async def give_up(request: Request, id: str) -> Response:
    """Gives a request up, or forgets one that has ended with its result."""
    requests = front_of(request).requests
    entry = requests.find(id, owner_of(request))
    entry.cancel("it was deleted")
    requests.drop(entry)
    return Response(msgspec.json.encode(entry.described()), media_type=JSON)
