"""The format of MLX-Knife's JSON API 0.1.4, which scripts rely on.

Written from its documentation; all objects allow additional keys, and existing keys keep their types and
values. `tests/spec/test_reference_shape.py` compares it with MLX-Knife's own schema if that is available
beside the checkout.
"""

from __future__ import annotations

from typing import Any

import jsonschema

Shape = dict[str, Any]

OWN_COMMANDS = frozenset({"cli", "lock", "prune", "search", "share", "update"})
"""Words of `command` that MLX-Knife does not have."""

_TEXT: Shape = {"type": "string"}
_TEXTS: Shape = {"type": "array", "items": _TEXT}
_COUNT: Shape = {"type": "integer", "minimum": 0}
_FLAG: Shape = {"type": "boolean"}
_HASH: Shape = {"type": ["string", "null"], "pattern": "^[A-Za-z0-9]{40}$"}
_MOMENT: Shape = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"}


def _words(*words: str) -> Shape:
    return {"type": "string", "enum": list(words)}


def _or_null(shape: Shape) -> Shape:
    return {**shape, "type": [shape["type"], "null"]}


def _list(items: Shape) -> Shape:
    return {"type": "array", "items": items}


def _object(needed: dict[str, Shape], may: dict[str, Shape] | None = None) -> Shape:
    return {"type": "object", "properties": {**needed, **(may or {})}, "required": list(needed)}


_HEALTH = _words("healthy", "unhealthy")
_ANY_OBJECT: Shape = {"type": ["object", "null"]}
_VERDICT = _object({"name": _TEXT, "status": _HEALTH, "reason": _TEXT})
_MODEL = _object(
    {
        "name": _TEXT,
        "hash": _HASH,
        "size_bytes": _COUNT,
        "last_modified": _MOMENT,
        "framework": _words("MLX", "GGUF", "PyTorch", "Unknown"),
        "model_type": _words("chat", "embedding", "base", "unknown"),
        "capabilities": _list(_words("text-generation", "chat", "embeddings", "completion")),
        "health": _HEALTH,
        "cached": _FLAG,
    }
)
_DATA: dict[str, Shape] = {
    "version": _object(
        {
            "cli_version": _TEXT,
            "json_api_spec_version": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+\\.[0-9]+$"},
        }
    ),
    "list": _object({"models": _list(_MODEL), "count": _COUNT}),
    "show": _object(
        {"model": _MODEL},
        {
            "metadata": _ANY_OBJECT,
            "files": _list(_object({"name": _TEXT, "size": _TEXT, "type": _TEXT})),
            "config": _ANY_OBJECT,
        },
    ),
    "health": _object(
        {
            "healthy": _list(_VERDICT),
            "unhealthy": _list(_VERDICT),
            "summary": _object({"total": _COUNT, "healthy_count": _COUNT, "unhealthy_count": _COUNT}),
        }
    ),
    "pull": _object(
        {"download_status": _TEXT, "message": _TEXT},
        {"model": _or_null(_TEXT), "expanded_name": _or_null(_TEXT)},
    ),
    "rm": _object({"action": _TEXT}, {"model": _or_null(_TEXT), "message": _TEXT}),
    "push": _object(
        {"repo_id": _TEXT, "branch": _TEXT, "repo_url": _TEXT},
        {
            "commit_sha": _or_null(_TEXT),
            "uploaded_files_count": _or_null(_COUNT),
            "experimental": _FLAG,
            "disclaimer": _TEXT,
        },
    ),
    "run": _object(
        {},
        {
            "model": _TEXT,
            "prompt": _TEXT,
            "response": _TEXT,
            "tokens_generated": {"type": "integer"},
            "generation_time_s": {"type": "number"},
        },
    ),
}
"""`data` of a success, by command; `clone` and `server` have none that is told."""
_ENVELOPE = _object(
    {
        "status": _words("success", "error"),
        "command": _words(
            "list", "show", "health", "pull", "rm", "clone", "version", "push", "run", "server"
        ),
        "data": _ANY_OBJECT,
        "error": {
            "type": ["object", "null"],
            "properties": {"type": _TEXT, "message": _TEXT, "matches": _TEXTS, "available_hashes": _TEXTS},
        },
    },
    {"api_version": {"type": "string", "pattern": "^json-[0-9]+\\.[0-9]+\\.[0-9]+$"}},
)
_SHAPE = jsonschema.Draft7Validator(_ENVELOPE)
_SHAPES = {command: jsonschema.Draft7Validator(shape) for command, shape in _DATA.items()}


def departures(envelope: dict[str, Any]) -> list[str]:
    """Return the differences of an envelope to MLX-Knife's format; none for our additional commands."""
    if str(envelope.get("command")) in OWN_COMMANDS:
        return []
    found = list(_SHAPE.iter_errors(envelope))
    if envelope.get("status") == "success":
        data = _SHAPES.get(str(envelope.get("command")))
        found += data.iter_errors(envelope.get("data")) if data else []
    return [f"{error.json_path}: {error.message[:200]}" for error in found]
