"""`make_app`: the server's ASGI application."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

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
    schema.secure(app)
    return app


async def _unrouted(request: Request, error: Exception) -> Response:
    """Of a path or method that no route has."""
    assert isinstance(error, HTTPException)
    code, said = CODES.get(error.status_code, ("http", "this cannot be answered"))
    return Refused(error.status_code, said, code, headers=error.headers).answer()
