"""`GET /v1/models`: what is served, in the shape of OpenAI's list with more about each."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ...workers.messages import About
from .. import schema
from ..drawn import Picture
from ..drawn import picture as picture_of
from ..front import Front, front_of
from ..refused import JSON, Refused

router = APIRouter()


def _described(front: Front, about: About) -> dict[str, Any]:
    labels = front.settings.labels.get(about.name)
    more = {"object": "model", "created": front.began, "owned_by": "diffusion_engine"}
    drawn = _drawn(front, about.name)
    more |= {"labels": labels, "picture": None if drawn is None else drawn.size}
    return {"id": about.name} | msgspec.to_builtins(about) | more


def _drawn(front: Front, name: str) -> Picture | None:
    """What a model draws, where it is one that ships: settings say what --model of `sample` calls it."""
    return picture_of(front.settings.models.get(name, ""))


@router.get("/v1/models", **schema.models)
async def models(request: Request) -> Response:
    """The models, the default one first."""
    front = front_of(request)
    front.started()
    named = sorted(front.service.models.values(), key=lambda a: a.name != front.settings.model)
    made = {"object": "list", "data": [_described(front, about) for about in named]}
    return Response(msgspec.json.encode(made), media_type=JSON)


@router.get("/v1/models/{id}", **schema.model)
async def model(request: Request, id: str) -> Response:
    """One of them."""
    front = front_of(request)
    front.started()
    return Response(msgspec.json.encode(_described(front, front.model(id))), media_type=JSON)


@router.get("/v1/models/{id}/picture", **schema.picture)
async def picture(request: Request, id: str) -> Response:
    """What a model that ships with the package draws: a PNG that carries its recipe."""
    front = front_of(request)
    front.started()
    if (drawn := _drawn(front, front.model(id).name)) is None:
        raise Refused(404, f"of {id!r} there is no picture; models that ship have one", "not_found")
    headers = {"etag": drawn.tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == drawn.tag:
        return Response(status_code=304, headers=headers)
    return Response(drawn.content, headers=headers, media_type="image/png")
