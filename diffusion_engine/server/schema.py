"""The OpenAPI description of the routes: bodies are read by hand, for speed and for strict JSON."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.responses import Response

from .pictures import NPZ, PNG, SAFETENSORS

OPEN = ("/livez", "/readyz", "/health")
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
SAYS = {
    400: "The body is no JSON",
    401: "The key is missing or wrong",
    404: "There is none of that name",
    406: "The samples have no form that Accept names",
    408: "The body came too slowly",
    409: "The request was given up, or not done by its deadline",
    413: "The body has too many bytes, or the request costs too much",
    415: "The body is of another type",
    422: "A value is wrong, in a sentence",
    429: "The queue is full; Retry-After says when to ask again",
    431: "The head is too large",
    502: "The workers that made it ended",
    503: "Nothing is taken now; Retry-After says when to ask again",
}
ASKED = (400, 401, 404, 408, 409, 413, 415, 422, 429, 431, 502, 503)


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
SHAPE = {"type": "array", "items": WHOLE}
STATUS = {"enum": ["queued", "running", "done", "cancelled", "failed"]}
REQUEST = _object(
    id=TEXT, object={"const": "request"}, status=STATUS, model=TEXT, created=WHOLE, n=WHOLE, rows=WHOLE,
    cost=WHOLE, done_rows=WHOLE,
)  # fmt: skip
SAMPLES = _object(
    id=TEXT, object={"const": "samples"}, model=TEXT, created=WHOLE, nfe=WHOLE, evaluations=WHOLE,
    seeds={"type": "array", "items": WHOLE}, finite={"type": "array", "items": FLAG},
    samples={"type": "array", "items": _object(seed=WHOLE, png=TEXT)}, recipe={"type": "object"},
    seconds={"type": "number"}, queued={"type": "number"},
)  # fmt: skip
SAMPLES["properties"]["reports"] = {"type": "array", "items": {"type": "object"}}  # of a driver
IMAGES = _object(
    created=WHOLE, data={"type": "array", "items": _object(b64_json=TEXT, seed=WHOLE)}, size=TEXT
)
MODEL = _object(
    id=TEXT, object={"const": "model"}, created=WHOLE, owned_by=TEXT, shape=SHAPE, decoded=SHAPE,
    classes=WHOLE, text=FLAG, guided=FLAG, guidance={"type": "number"},
    picture={"type": ["array", "null"], "items": WHOLE},
)  # fmt: skip
BYTES = {"type": "string", "format": "binary"}
EVENTS = {"text/event-stream": {"schema": _object(event=TEXT, data=TEXT)}}


def _route(
    content: dict[str, Any],
    errors: tuple[int, ...],
    body: type[BaseModel] | None = None,
    more: dict[int, Any] | None = None,
) -> dict[str, Any]:
    """What FastAPI is told of a route."""
    wrong = {"content": {PNG: {"schema": ERROR}}}
    answers: dict[int, Any] = {200: {"description": "Done", "content": content}, **(more or {})}
    answers |= {status: {"description": SAYS[status], **wrong} for status in errors}
    made: dict[str, Any] = {"responses": answers, "response_class": Response}
    if body is not None:
        given = {"required": True, "content": {PNG: {"schema": body.model_json_schema()}}}
        made["openapi_extra"] = {"requestBody": given}
    return made


def _json(shape: dict[str, Any]) -> dict[str, Any]:
    return {PNG: {"schema": shape}}


def samples(body: type[BaseModel]) -> dict[str, Any]:
    content = _json(SAMPLES) | {NPZ: {"schema": BYTES}, SAFETENSORS: {"schema": BYTES}} | EVENTS
    accepted = {202: {"description": "Accepted, with wait=false", "content": _json(REQUEST)}}
    return _route(content, (*ASKED, 406), body, accepted)


def images(body: type[BaseModel]) -> dict[str, Any]:
    return _route(_json(IMAGES) | EVENTS, ASKED, body)


_KEPT = _json(REQUEST) | {NPZ: {"schema": BYTES}, SAFETENSORS: {"schema": BYTES}}
requests = _route(_KEPT, (401, 404, 406, 422, 431))
models = _route(
    _json(_object(object={"const": "list"}, data={"type": "array", "items": MODEL})),
    (401, 431, 503),
)
model = _route(_json(MODEL), (401, 404, 422, 431, 503))
picture = _route({"image/png": {"schema": BYTES}}, (401, 404, 422, 431, 503))
health = _route(_json(_object(status=TEXT)), (431, 503))
version = _route(_json(_object(version=TEXT)), (401, 431))
metrics = _route({"text/plain": {"schema": TEXT}}, (401, 431))


def secure(app: FastAPI) -> None:
    """Says of all routes but health that they ask for a key."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = plain()
            kinds = made.setdefault("components", {}).setdefault("securitySchemes", {})
            kinds["key"] = {"type": "http", "scheme": "bearer"}
            for path, methods in made["paths"].items():
                for about in methods.values() if path not in OPEN else ():
                    about["security"] = [{"key": []}]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
