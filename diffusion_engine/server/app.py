"""`make_app`: the server's ASGI application."""

from __future__ import annotations

from itertools import chain

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ..version import __version__
from ..workers.service import Service
from . import schema
from .front import Front
from .guard import Guard
from .refused import Refused
from .routes import health, images, models, page, requests, samples
from .settings import Settings

ROUTES = (health, models, samples, images, requests, page)
CODES = {
    404: ("not_found", "there is nothing at this path"),
    405: ("method", "this path has no such method"),
}


def make_app(service: Service, settings: Settings) -> FastAPI:
    """The application on a service, which its caller starts and closes."""
    app = FastAPI(
        title="diffusion_engine",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    front = app.state.front = Front(service, settings)
    app.add_middleware(Guard, front=front)
    app.add_exception_handler(HTTPException, _unrouted)
    for routes in ROUTES:
        app.include_router(routes.router)
    if settings.secrets:
        schema.secure(app)
    return app


async def _unrouted(request: Request, error: Exception) -> Response:
    """Of a path or method that no route has."""
    assert isinstance(error, HTTPException)
    code, said = CODES.get(error.status_code, ("http", "this cannot be answered"))
    headers = {"allow": ", ".join(_methods(request))} if error.status_code == 405 else {}
    return Refused(error.status_code, said, code, headers=headers).answer()


def _methods(request: Request) -> list[str]:
    """Those of all routes of a path, where the error names those of the first."""
    found: set[str] = set()
    for route in chain.from_iterable(routes.router.routes for routes in ROUTES):
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", set())
    return sorted(found)
