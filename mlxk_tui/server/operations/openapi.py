"""The OpenAPI document of the API, made from its routes and the schemas of their bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from mlxk_tui import __version__
from mlxk_tui.ops.core.retry_after import HEADER as RETRY_AFTER
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import json_response
from mlxk_tui.server.requests.schema import MODEL_NAMES
from mlxk_tui.server.requests.shapes import ref

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}
_MESSAGES_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {"type": {"const": "error"}, **_ERROR["properties"], "request_id": {"type": "string"}},
    "additionalProperties": False,
}
"""Errors in Anthropic's shape."""


_REQUEST_ID: dict[str, Any] = {
    "description": "The client's own, or a new one.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    schemas = [route.schema for route in routes if route.schema is not None]
    _, definitions = models_json_schema(
        [(schema, "validation") for schema in schemas], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "mlxk-tui", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {
                **definitions.get("$defs", {}),
                "Error": _ERROR,
                "MessagesError": _MESSAGES_ERROR,
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"key": []}, {"header": []}],
    }


_STATUSES = {
    400: "The request is malformed, asks for what is not done here, or is longer than the model's context.",
    401: "The API key is missing or wrong.",
    403: "The host, the origin or the site that the request names may not call.",
    404: "There is no model of that name.",
    408: "The body did not arrive in time.",
    409: "Several models have that name.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "The model cannot run here, or the request holds something else than text.",
    429: "As many others are there as the server takes.",
    500: "A fault of the server.",
    501: "A package that the request needs is not installed.",
    503: "The server is stopping, the inference process ended, or the model does not fit into memory.",
}
_BODY_STATUSES = (408, 413, 415)
_MODEL_STATUSES = (404, 409, 422, 429, 501)


def _statuses(route: Route) -> list[int]:
    """Return with which statuses a route can refuse."""
    found = {400, 403, 500}
    if not route.open:
        found.add(401)
    if not route.quiet:
        found.add(503)
    if route.schema is not None:
        found |= {*_BODY_STATUSES, *_MODEL_STATUSES}
    if route.prefix is not None:
        found |= {404, 409, 422}
    return sorted(found - set(route.statuses))


def _refusal(route: Route, status: int) -> dict[str, Any]:
    error = ref("Error" if route.error_body is None else "MessagesError")
    if route.either:
        error = {"anyOf": [ref("Error"), ref("MessagesError")]}
    headers = {"X-Request-ID": _REQUEST_ID}
    if status in {429, 503}:
        headers[RETRY_AFTER] = {"description": "Seconds.", "schema": {"type": "integer"}}
    content = {"application/json": {"schema": error}}
    return {"description": _STATUSES[status], "headers": headers, "content": content}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__module__.rpartition(".")[2] + "_" + route.handler.__name__,
        "responses": {
            **{
                str(status): {
                    "description": "The answer.",
                    "headers": {"X-Request-ID": _REQUEST_ID},
                    "content": _content(route),
                }
                for status in route.statuses
            },
            **{str(status): _refusal(route, status) for status in _statuses(route)},
        },
    }
    if route.schema is not None:
        reference = {"$ref": f"#/components/schemas/{route.schema.__name__}"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
    if route.parameters:
        operation["parameters"] = [
            {"name": name, "in": "query", "description": about, "schema": schema}
            for name, about, schema in route.parameters
        ]
    if route.prefix is not None:
        operation["parameters"] = [
            {
                "name": "id",
                "in": "path",
                "required": True,
                "description": MODEL_NAMES + " Slashes may stand in it.",
                "schema": {"type": "string"},
            }
        ]
    return operation


def _content(route: Route) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if route.media == "application/json":
        schema = {"type": "object", "required": list(route.answer)}
    content: dict[str, Any] = {route.media: {"schema": schema}}
    if route.streams:
        content["text/event-stream"] = {"schema": {"description": "Server-sent events."}}
    return content


def route_of(routes: Sequence[Route]) -> Route:
    """Return the route that serves the document of these routes and itself."""
    everything: list[Route] = []

    async def openapi(call: Call) -> web.StreamResponse:
        """Return the document."""
        del call
        return json_response(document(everything))

    own = Route("GET", "/openapi.json", openapi, "This document", answer=("openapi", "paths"), quiet=True)
    everything += [*routes, own]
    return own
