"""The page at /: files of the package, under a policy that lets them load and ask nothing elsewhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import Response

from ..refused import Refused

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # asked for again, which costs a 304
}


@dataclass(frozen=True)
class File:
    content: bytes
    headers: dict[str, str]


def _read() -> dict[str, File]:
    """The files by name: what a client asks for is looked up in here, and never is a path."""
    found = {}
    for file in files("diffusion_engine.server").joinpath("page").iterdir():
        kind = TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            content = file.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[file.name] = File(content, {**HEADERS, "content-type": kind, "etag": tag})
    return found


FILES = _read()
router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(request: Request) -> Response:
    """The page itself."""
    return _answer("index.html", request)


@router.get("/page/{name}")
async def part(name: str, request: Request) -> Response:
    """A file of it."""
    return _answer(name, request)


def _answer(name: str, request: Request) -> Response:
    if (file := FILES.get(name)) is None:
        raise Refused(404, "there is nothing at this path", "not_found")
    if request.headers.get("if-none-match") == file.headers["etag"]:
        return Response(status_code=304, headers=file.headers)
    return Response(file.content, headers=file.headers)
