"""Parses a JSON body into a request, with limits on nesting and on the number of values.

All functions are synchronous. Large bodies are parsed in a `parser_worker` process, because Python's JSON
parser holds the interpreter lock: 16 MB of short keys take two seconds.
"""

from __future__ import annotations

import importlib
import json
import pickle
from typing import Any, NamedTuple, NoReturn, TypeVar

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.schema import Schema, parse

MAX_DEPTH = 64
"""Maximum nesting of a body; JSON schemas of tools need about 20 levels."""
MAX_OBJECTS = 50_000
"""Maximum number of objects and arrays in a body. The largest requests of coding agents have thousands."""
MAX_VALUES = 250_000
"""Maximum number of values in a body, token ids not counted: each is at least one prompt token."""
_MAX_BRACKETS = 1_000_000
"""Maximum number of `[` and `{` in a body, including those in strings: each may take 64 bytes."""
_PROMPTS = frozenset({"prompt", "input", "tokens"})
"""Fields that may contain token ids."""
_CHEAP_BYTES, _CHEAP_VALUES = 1 << 20, 10_000

S = TypeVar("S", bound=Schema)


class ParseResult(NamedTuple):
    """The result of a worker for one body: a request or an error."""

    request: bytes = b""
    """The pickled request; it is unpickled only if its prompts fit the model's context."""
    model: str | None = None
    """The field `model` of the request."""
    longest_ids: int = 0
    """Number of token ids of the longest prompt."""
    error: tuple[int, str, str, str | None] | None = None
    """HTTP status, type, message and parameter of the `ApiError`, if the body is invalid."""
    exits: bool = False
    """Whether the worker exits after this result."""


def is_cheap(raw: bytes) -> bool:
    """Return whether a body parses within milliseconds: it is small and mostly text."""
    return len(raw) <= _CHEAP_BYTES and sum(map(raw.count, (b",", b"[", b"{"))) <= _CHEAP_VALUES


def parse_request(schema: type[S], raw: bytes) -> S:
    """Parse a body as JSON and validate it against a schema.

    Raises:
        ApiError: 400 if it is invalid, 413 if it has too many values.
    """
    return parse(schema, parse_object(raw))


def parse_frame(frame: bytes) -> ParseResult:
    """Parse the body in an input frame of a worker."""
    path, _, raw = frame.partition(b"\n")
    module, _, name = path.decode("ascii").partition(":")
    schema: type[Schema] = getattr(importlib.import_module(module), name)
    try:
        request = parse_request(schema, raw)
    except ApiError as error:
        return ParseResult(error=(error.status, error.type, error.message, error.param))
    model = getattr(request, "model", None)
    return ParseResult(pickle.dumps(request, pickle.HIGHEST_PROTOCOL), model, request.longest_ids)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Parse `raw` as a JSON object.

    Raises:
        ApiError: 400 if it is not a JSON object or nested too deeply, 413 if it has too many values.
    """
    if not raw.strip():
        raise invalid("The body is empty. Send a JSON object.")
    if raw.count(b"{") + raw.count(b"[") > _MAX_BRACKETS:
        raise _too_many()
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise invalid("The body is not UTF-8. Encode it as UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise invalid(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError as error:  # NaN, or a number with thousands of digits
        raise invalid(f"The body is not JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    _check_shape(value)
    return value


def _check_shape(body: dict[str, Any]) -> None:
    """Check the limits on nesting and the number of values.

    Raises:
        ApiError: 400 if it is nested too deeply, 413 if it has too many values.
    """
    values = len(body)
    level: list[object] = [
        _without_ids(item) if name in _PROMPTS else item
        for name, item in body.items()
        if isinstance(item, (dict, list))
    ]
    objects, depth = 1, 1
    while level:
        depth += 1
        objects += len(level)
        if depth > MAX_DEPTH:
            raise _too_deep()
        below: list[object] = []
        for container in level:
            values += len(container)  # type: ignore[arg-type] # a list or dict
            if values > MAX_VALUES or objects > MAX_OBJECTS:
                raise _too_many()
            items = container.values() if isinstance(container, dict) else container
            below += [item for item in items if isinstance(item, (dict, list))]  # type: ignore[attr-defined] # a list
        level = below


def _without_ids(prompt: object) -> object:
    """Return a prompt without its token ids: these are limited by the model's context."""
    if not isinstance(prompt, list):
        return prompt
    if prompt and type(prompt[0]) is int:
        return []
    return [[] if isinstance(item, list) and item and type(item[0]) is int else item for item in prompt]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


def _too_deep() -> ApiError:
    return invalid(f"The body is nested deeper than {MAX_DEPTH} levels. Reduce the nesting.")


def _too_many() -> ApiError:
    return invalid(
        f"The body has more than {MAX_OBJECTS:,} objects and arrays, or {MAX_VALUES:,} values. Send fewer.",
        status=413,
    )
