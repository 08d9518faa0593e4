"""From the bytes of a body to a request, within limits of nesting and of how many values there are.

Nothing of it is asynchronous. A large body is parsed by `parser_worker` in a process of its own, since
Python's JSON parser holds the interpreter lock: 16 MB of short keys take two seconds.
"""

from __future__ import annotations

import importlib
import json
import pickle
from typing import Any, NamedTuple, NoReturn, TypeVar

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.schema import Schema, parse

MAX_DEPTH = 64
"""Deepest nesting of a body; JSON schemas of tools need about 20."""
MAX_OBJECTS = 50_000
"""Most objects and lists of a body. A coding agent's largest requests have some thousands."""
MAX_VALUES = 250_000
"""Most values of a body, token ids of prompts not counted: each becomes a token of the prompt at least."""
_MAX_BRACKETS = 1_000_000
"""Most opening brackets of a body, those in texts included: each may cost 64 bytes of memory."""
_PROMPTS = frozenset({"prompt", "input", "tokens"})
"""Fields that may be token ids."""
_CHEAP_BYTES, _CHEAP_VALUES = 1 << 20, 10_000

S = TypeVar("S", bound=Schema)


class Outcome(NamedTuple):
    """What became of a body."""

    request: bytes = b""
    """The request, pickled once more: it is not unpacked before it is known to fit the model."""
    model: str | None = None
    """The model that it names."""
    longest_ids: int = 0
    """Most token ids of a prompt."""
    error: tuple[int, str, str, str | None] | None = None
    """Status, type, message and parameter of why there is none."""
    leaves: bool = False
    """Whether the process ends after this."""


def is_cheap(raw: bytes) -> bool:
    """Tell whether a body is parsed in a few milliseconds: it is small, and mostly text."""
    return len(raw) <= _CHEAP_BYTES and sum(map(raw.count, (b",", b"[", b"{"))) <= _CHEAP_VALUES


def parse_request(schema: type[S], raw: bytes) -> S:
    """Return the request that a body is.

    Raises:
        ApiError: 400 it is malformed, 413 it holds too much.
    """
    return parse(schema, parse_object(raw))


def outcome_of(frame: bytes) -> Outcome:
    """Return what becomes of a body."""
    path, _, raw = frame.partition(b"\n")
    module, _, name = path.decode("ascii").partition(":")
    schema: type[Schema] = getattr(importlib.import_module(module), name)
    try:
        request = parse_request(schema, raw)
    except ApiError as error:
        return Outcome(error=(error.status, error.type, error.message, error.param))
    model = getattr(request, "model", None)
    return Outcome(pickle.dumps(request, pickle.HIGHEST_PROTOCOL), model, request.longest_ids)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the object that `raw` is as JSON.

    Raises:
        ApiError: it is not one, or goes beyond the limits.
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
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise invalid(f"The body is not JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    _check_shape(value)
    return value


def _check_shape(body: dict[str, Any]) -> None:
    """Refuse what is nested too deep or holds too much.

    Raises:
        ApiError: 400, 413.
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
    """Return a prompt without its token ids: whether they are too many, the model's context says."""
    if not isinstance(prompt, list):
        return prompt
    if prompt and type(prompt[0]) is int:
        return []
    return [[] if isinstance(item, list) and item and type(item[0]) is int else item for item in prompt]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _too_deep() -> ApiError:
    return invalid(f"The body is nested deeper than {MAX_DEPTH} levels. Make it flatter.")


def _too_many() -> ApiError:
    return invalid(
        f"The body holds more than {MAX_OBJECTS:,} objects and lists, or {MAX_VALUES:,} values. Send fewer.",
        status=413,
    )
