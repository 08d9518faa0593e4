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
        }
    },
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
            "schemas": {**definitions.get("$defs", {}), "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__module__.rpartition(".")[2] + "_" + route.handler.__name__,
        "responses": {
            "200": {"description": "The answer.", "content": _content(route)},
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
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
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
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

    own = Route("GET", "/openapi.json", openapi, "This document", quiet=True)
    everything += [*routes, own]
    return own
