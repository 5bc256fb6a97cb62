"""Whether the server lives, takes requests, what it is, and what it counts."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ...version import __version__
from .. import schema
from ..front import front_of
from ..metrics import TYPE, exposition
from ..refused import JSON

router = APIRouter()


@router.get("/livez", **schema.health)
async def livez() -> Response:
    """The process answers."""
    return Response(b'{"status":"alive"}', media_type=JSON)


@router.get("/readyz", **schema.health)
@router.get("/health", **schema.health)
async def readyz(request: Request) -> Response:
    """Requests are taken now."""
    front_of(request).ready()
    return Response(b'{"status":"ready"}', media_type=JSON)


@router.get("/version", **schema.version)
async def version() -> Response:
    """Of the package."""
    return Response(msgspec.json.encode({"version": __version__}), media_type=JSON)


@router.get("/metrics", **schema.metrics)
async def metrics(request: Request) -> Response:
    """Counters and gauges, as Prometheus reads them."""
    return Response(exposition(front_of(request)), headers={"content-type": TYPE})
