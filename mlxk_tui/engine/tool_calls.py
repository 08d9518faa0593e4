"""Reads the payload of a tool call: with the model's own parser, else as JSON.

The payload is the model's output, so anything may be in it. What is no tool call is reported as None,
and the caller shows the text instead of losing it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlxk_tui.engine.protocol import ToolCall

Tools = Sequence[Mapping[str, Any]]
"""Tools in OpenAI's shape."""
Parser = Callable[[str, Any], Any]
"""mlx-lm's `tokenizer.tool_parser(payload, tools)`: a call or a list of calls, or it raises anything."""

_MAX_CHARACTERS = 1_000_000
_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]{1,256}")
_SAYS_WHAT_IT_IS = frozenset({"type", "$ref", "allOf", "anyOf", "oneOf", "const", "enum"})
_ID = re.compile(r"[\w.:-]{1,128}")
_BETWEEN = re.compile(r"[\s,;]*")
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL)


def parse_tool_calls(
    payload: str,
    *,
    parser: Parser | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    first_index: int = 0,
) -> tuple[ToolCall, ...] | None:
    """Return the calls in a payload, at least one, or None where it holds something else.

    Without a parser, or where that fails, these are understood: `{"name": …, "arguments": {…}}`, with
    `parameters` for arguments, or inside `{"function": {…}}`; a list of them; several one after another.

    Args:
        payload: what stands between the markers.
        parser: the parser that belongs to the model.
        tools: the request's tools, for parsers that look at the types of arguments.
        first_index: index of the first call; the next ones count on.
    """
    if len(payload) > _MAX_CHARACTERS:
        return None
    if parser is not None:
        try:
            calls = _calls_of(parser(payload, list(tools) or None), first_index)
        except Exception:  # noqa: BLE001 - other people's parser on a model's text: it raises anything
            calls = None
        if calls is not None:
            return calls
    return _calls_of(_json_values(payload), first_index)


def forced_call_schema(tools: Tools) -> str:
    """Return the JSON schema of a call of one of some tools, for `Generation.grammar`.

    An answer that follows it is read by `cut_calls.forced_call`. References inside a tool's parameters
    keep their meaning; parameters that do not say what they are, are an object.
    """
    calls: list[dict[str, Any]] = []
    for number, tool in enumerate(tools):
        function = tool.get("function", tool)
        parameters = function.get("parameters") or {}
        if not _SAYS_WHAT_IT_IS & parameters.keys():
            parameters = {"type": "object", **parameters}
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function.get("name")},
                    "arguments": {"$id": f"urn:tool:{number}", **parameters},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls})


def _json_values(text: str) -> object:
    """Return the JSON values that stand one after another in a text; None where there is more than JSON."""
    fenced = _FENCE.fullmatch(text)
    if fenced:
        text = fenced[1]
    decoder = json.JSONDecoder()
    values: list[object] = []
    at = _after_blanks(text, 0)
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.extend(value if isinstance(value, list) else [value])
        at = _after_blanks(text, at)
    return values


def _after_blanks(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _calls_of(value: object, first_index: int) -> tuple[ToolCall, ...] | None:
    found = value if isinstance(value, list) else [value]
    calls: list[ToolCall] = []
    for index, item in enumerate(found, first_index):
        call = _call_of(item, index)
        if call is None:
            return None
        calls.append(call)
    return tuple(calls) or None


def _call_of(item: object, index: int) -> ToolCall | None:
    if not isinstance(item, dict):
        return None
    inner = item.get("function")
    call = inner if isinstance(inner, dict) else item
    name = call.get("name")
    arguments = _arguments_of(call.get("arguments", call.get("parameters")))
    if not isinstance(name, str) or not _NAME.fullmatch(name) or arguments is None:
        return None
    given = item.get("id")
    own = given if isinstance(given, str) and _ID.fullmatch(given) else f"call_{secrets.token_hex(12)}"
    return ToolCall(index, own, name, arguments)


def _arguments_of(value: object) -> str | None:
    """Return arguments as the text of a JSON object."""
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.strip() else {}
        if value is None:
            value = {}
        if not isinstance(value, dict):
            return None
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # no JSON, or what JSON cannot hold
        return None
