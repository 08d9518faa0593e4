"""The OpenAPI document, generated from the routes and their request schemas.

Format: https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from mlxk_tui import __version__
from mlxk_tui.ops.core.retry_after import HEADER as RETRY_AFTER
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import json_response
from mlxk_tui.server.requests.json_schemas import ref
from mlxk_tui.server.requests.schema import MODEL_NAMES

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
"""Errors in the format of Anthropic's API."""


_REQUEST_ID: dict[str, Any] = {
    "description": "The id that the client sent, or a new one.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes."""
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


_STATUS_DESCRIPTIONS = {
    400: "The request is invalid, uses an unsupported feature, or exceeds the model's context.",
    401: "The API key is missing or wrong.",
    403: "The host, the origin or the site of the request is not allowed.",
    404: "The model was not found.",
    408: "The body did not arrive in time.",
    409: "The name matches several models.",
    413: "The body is too large.",
    415: "The body is compressed.",
    422: "The model can't run here, or the request contains content other than text.",
    429: "The queue is full.",
    500: "An internal error occurred.",
    501: "A package that the request needs is not installed.",
    503: "The server is stopping, the inference process crashed, or the model doesn't fit in memory.",
}
_BODY_STATUSES = (408, 413, 415)
_MODEL_STATUSES = (404, 409, 422, 429, 501)


def _error_statuses(route: Route) -> list[int]:
    """Return the error statuses of a route."""
    statuses = {400, 403, 500}
    if not route.public:
        statuses.add(401)
    if not route.quiet:
        statuses.add(503)
    if route.schema is not None:
        statuses |= {*_BODY_STATUSES, *_MODEL_STATUSES}
    if route.prefix is not None:
        statuses |= {404, 409, 422}
    return sorted(statuses - set(route.statuses))


def _error_response(route: Route, status: int) -> dict[str, Any]:
    error = ref("Error" if route.error_body is None else "MessagesError")
    if route.anthropic_too:
        error = {"anyOf": [ref("Error"), ref("MessagesError")]}
    headers = {"X-Request-ID": _REQUEST_ID}
    if status in {429, 503}:
        headers[RETRY_AFTER] = {"description": "Seconds to wait.", "schema": {"type": "integer"}}
    content = {"application/json": {"schema": error}}
    return {"description": _STATUS_DESCRIPTIONS[status], "headers": headers, "content": content}


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__module__.rpartition(".")[2] + "_" + route.handler.__name__,
        "responses": {
            **{
                str(status): {
                    "description": "Success.",
                    "headers": {"X-Request-ID": _REQUEST_ID},
                    "content": _content(route),
                }
                for status in route.statuses
            },
            **{str(status): _error_response(route, status) for status in _error_statuses(route)},
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
                "description": MODEL_NAMES + " It may contain slashes.",
                "schema": {"type": "string"},
            }
        ]
    return operation


def _content(route: Route) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if route.media_types == ("application/json",):
        schema = {"type": "object", "required": list(route.response_fields)}
    content: dict[str, Any] = {media_type: {"schema": schema} for media_type in route.media_types}
    if route.streams:
        content["text/event-stream"] = {"schema": {"description": "Server-sent events."}}
    return content


def document_route(routes: Sequence[Route]) -> Route:
    """Return the route that serves the document of these routes and of itself."""
    documented: list[Route] = []

    async def openapi(call: Call) -> web.StreamResponse:
        """Handle GET /openapi.json: return the document of all routes."""
        del call
        return json_response(document(documented))

    route = Route(
        "GET", "/openapi.json", openapi, "This document", response_fields=("openapi", "paths"), quiet=True
    )
    documented += [*routes, route]
    return route
