"""`GET /v1/models`: what is served, in the shape of OpenAI's list with more about each."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ...workers.messages import About
from .. import schema
from ..front import Front, front_of
from ..refused import JSON

router = APIRouter()


def _described(front: Front, about: About) -> dict[str, Any]:
    labels = front.settings.labels.get(about.name)
    more = {"object": "model", "created": front.began, "owned_by": "diffusion_engine"}
    return {"id": about.name} | more | msgspec.to_builtins(about) | {"labels": labels}


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
