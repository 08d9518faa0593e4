"""The OpenAPI document of the API, made from its routes and the schemas of their bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from mlxk_tui import __version__
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import json_response

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


def _operation(route: Route) -> dict[str, Any]:
    error = "Error" if route.error_body is None else "MessagesError"
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__module__.rpartition(".")[2] + "_" + route.handler.__name__,
        "responses": {
            **{
                str(status): {"description": "The answer.", "content": _content(route)}
                for status in route.statuses
            },
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}},
            },
        },
    }
    if route.schema is not None:
        reference = {"$ref": f"#/components/schemas/{route.schema.__name__}"}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference}},
        }
    if route.prefix is not None:
        operation["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
        ]
    return operation


def _content(route: Route) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if route.media == "application/json":
        schema = {"type": "object", "required": list(route.answer)}
    content: dict[str, Any] = {route.media: {"schema": schema}}
    if route.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
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
