"""What the OpenAPI document says of objects whose fields depend on their type.

A request has one class for all kinds of a message's part, since an unknown kind gets an answer of its own
(422: text only). The document says which kinds there are and what each needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BeforeValidator, WithJsonSchema

TEXT: dict[str, Any] = {"type": "string"}
NAME: dict[str, Any] = {"type": "string", "minLength": 1}
NULL: dict[str, Any] = {"type": "null"}
STOPS: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "maxLength": 1000},
        {"type": "array", "items": {"type": "string", "maxLength": 1000}, "maxItems": 16},
        NULL,
    ]
}
BIAS: dict[str, Any] = {
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
PROMPTS: dict[str, Any] = {
    "anyOf": [
        NAME,
        {"type": "array", "items": NAME, "minItems": 1, "maxItems": 64},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
            "minItems": 1,
            "maxItems": 64,
        },
    ]
}
TEXTS: dict[str, Any] = {"anyOf": [NAME, {"type": "array", "items": NAME, "minItems": 1, "maxItems": 2048}]}
MODEL: dict[str, Any] = {
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
    """Return a reference to another object of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: Mapping[str, Any], *, least: int = 0) -> dict[str, Any]:
    """Return a list."""
    return {"type": "array", "items": dict(items), **({"minItems": least} if least else {})}


def nullable(*schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of these, or null."""
    return {"anyOf": [*map(dict, schemas), NULL]}


def shape(*required: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object that has these fields, the required ones always."""
    fields = {name: dict(value) for name, value in properties.items()}
    return {"type": "object", "required": list(required), "properties": fields}


def kind(*words: str) -> dict[str, Any]:
    """Return a text that is one of these words."""
    return {"enum": list(words)}


def either(*shapes: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return what makes the document say that an object is one of these, for `json_schema_extra`."""

    def say(schema: dict[str, Any]) -> None:
        for name in schema.keys() - {"title", "description"}:
            del schema[name]
        schema["anyOf"] = [dict(one) for one in shapes]

    return say


def fields(*required: str, **properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a condition for `conditions`: what these fields hold, and which of them are there."""
    return {"required": list(required), "properties": {name: dict(one) for name, one in properties.items()}}


def conditions(*choices: Sequence[Mapping[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Return what makes the document say how fields hang together, for `json_schema_extra`.

    Of each choice one condition holds.
    """

    def say(schema: dict[str, Any]) -> None:
        schema["allOf"] = [{"anyOf": [dict(one) for one in choice]} for choice in choices]

    return say


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Takes a number without a fraction however it is written: to JSON Schema 1.0 is an integer."""


def refused(*allowed: Any) -> WithJsonSchema:
    """Return what makes the document say that a known field is not done here: only these values are taken."""
    return WithJsonSchema({"enum": [None, *allowed]})


def not_empty(schema: dict[str, Any]) -> None:
    """Make the document say that a list among these has an item, for `json_schema_extra`."""
    for one in schema.get("anyOf", [schema]):
        if one.get("type") == "array":
            one["minItems"] = 1
