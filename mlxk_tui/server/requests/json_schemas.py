"""JSON schemas for the OpenAPI document, for objects whose fields depend on their `type`.

The models have one class for all types of a content part, because an unknown type gets a specific error
(422: text only). The OpenAPI document lists the supported types and the fields that each requires.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BeforeValidator, WithJsonSchema

STRING: dict[str, Any] = {"type": "string"}
NON_EMPTY_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
NULL: dict[str, Any] = {"type": "null"}
STOP: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "maxLength": 1000},
        {"type": "array", "items": {"type": "string", "maxLength": 1000}, "maxItems": 16},
        NULL,
    ]
}
LOGIT_BIAS: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": {"type": "number"},
            "maxProperties": 1024,
        },
        NULL,
    ]
}
PROMPT: dict[str, Any] = {
    "anyOf": [
        NON_EMPTY_STRING,
        {"type": "array", "items": NON_EMPTY_STRING, "minItems": 1, "maxItems": 64},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "minItems": 1,
            "maxItems": 64,
        },
    ]
}
EMBEDDING_INPUT: dict[str, Any] = {
    "anyOf": [NON_EMPTY_STRING, {"type": "array", "items": NON_EMPTY_STRING, "minItems": 1, "maxItems": 2048}]
}
MODEL_NAME: dict[str, Any] = {
    "anyOf": [
        {
            "type": "string",
            "maxLength": 96,
            "pattern": r"^$|^([A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*/)?[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*"
            r"(@[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*)?$",
        },
        NULL,
    ]
}


def ref(name: str) -> dict[str, Any]:
    """Return a reference to a schema in `components` of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Mapping[str, Any], *, least: int = 0) -> dict[str, Any]:
    """Return the schema of an array with at least `least` items."""
    return {"type": "array", "items": dict(items), **({"minItems": least} if least else {})}


def nullable(*schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that allows these schemas or null."""
    return {"anyOf": [*map(dict, schemas), NULL]}


def object_schema(*required: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these properties."""
    fields = {name: dict(value) for name, value in properties.items()}
    return {"type": "object", "required": list(required), "properties": fields}


def enum_schema(*values: str) -> dict[str, Any]:
    """Return the schema of a string with one of these values."""
    return {"enum": list(values)}


def any_of(*schemas: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return a `json_schema_extra` that replaces a model's schema with `anyOf` these schemas."""

    def update(schema: dict[str, Any]) -> None:
        for name in schema.keys() - {"title", "description"}:
            del schema[name]
        schema["anyOf"] = [dict(item) for item in schemas]

    return update


def condition(*required: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a condition for `all_of`: the values of some properties, and which of them are required."""
    return {"required": list(required), "properties": {name: dict(item) for name, item in properties.items()}}


def all_of(*choices: Sequence[Mapping[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Return a `json_schema_extra` that adds dependencies between fields to a model's schema.

    At least one condition of each choice must hold.
    """

    def update(schema: dict[str, Any]) -> None:
        schema["allOf"] = [{"anyOf": [dict(item) for item in choice]} for choice in choices]

    return update


def _to_int(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


INTEGER = BeforeValidator(_to_int)
"""Accepts floats without a fraction as integers: in JSON Schema, 1.0 is an integer."""


def unsupported(*allowed: Any) -> WithJsonSchema:
    """Return the schema of a field that isn't supported: only null and these values are accepted."""
    return WithJsonSchema({"enum": [None, *allowed]})


def not_empty(schema: dict[str, Any]) -> None:
    """Add `minItems: 1` to the arrays of a field's schema, as its `json_schema_extra`."""
    for item in schema.get("anyOf", [schema]):
        if item.get("type") == "array":
            item["minItems"] = 1
