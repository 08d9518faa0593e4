"""Parses the payload of a tool call block, with the model's own parser or else as JSON.

The payload is model output and may contain anything. If it is not a tool call, the result is None, and the
caller shows the text as content.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlxk_tui.engine.generation import GrammarSyntax, ToolCall

Tools = Sequence[Mapping[str, Any]]
"""Tools in OpenAI's format."""
Parser = Callable[[str, Any], Any]
"""mlx-lm's `tokenizer.tool_parser(payload, tools)`: returns a call or a list of calls, or raises anything."""

_COMPACT = {"whitespace_flexible": False}
"""llguidance's options for a JSON schema: no whitespace except in strings."""
CUSTOM_TOOL_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""Parameters of a custom tool, whose input is free text, when it is presented to the model as a function."""
_MAX_CHARACTERS = 1_000_000
_NAME = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]{1,256}")
_TYPE_KEYWORDS = frozenset({"type", "$ref", "allOf", "anyOf", "oneOf", "const", "enum"})
_ID = re.compile(r"[\w.:-]{1,128}")
_SEPARATORS = re.compile(r"[\s,;]*")
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n\s*```\s*", re.DOTALL)


def parse_tool_calls(
    payload: str,
    *,
    parser: Parser | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    first_index: int = 0,
) -> tuple[ToolCall, ...] | None:
    """Parse the tool calls in a payload.

    Without a parser, or if it fails, these JSON forms are accepted: `{"name": …, "arguments": {…}}`, also
    with `parameters` instead of `arguments` or wrapped in `{"function": {…}}`; a list of them; several of
    them one after another.

    Args:
        payload: the text between the markers.
        parser: the model's parser.
        tools: the request's tools, for parsers that use the types of arguments.
        first_index: index of the first call; the others follow.

    Returns:
        At least one call; None if the payload is something else.
    """
    if len(payload) > _MAX_CHARACTERS:
        return None
    if parser is not None:
        try:
            calls = _parse_calls(parser(payload, list(tools) or None), first_index)
        except Exception:  # noqa: BLE001 - a parser may raise anything on model output
            calls = None
        if calls is not None:
            return calls
    return _parse_calls(_json_values(payload), first_index)


@dataclass(frozen=True)
class ForcedTool:
    """A tool that the model may be forced to call."""

    name: str
    parameters: Mapping[str, Any] | None = None
    """JSON schema of the arguments."""
    lark: str | None = None
    """For a tool with free-text input: the Lark grammar of the text, with the start rule `start`."""


def forced_call_grammar(tools: Sequence[ForcedTool]) -> tuple[str, GrammarSyntax]:
    """Return a grammar for answers that call one of the tools, and its syntax.

    Such an answer is an object with `name` and `arguments`, or, for a tool with a Lark grammar, the name of
    the tool as a JSON string, a line break, and the bare text. `truncated_calls.parse_forced_call` parses it.
    """
    schema = forced_call_schema([tool for tool in tools if tool.lark is None])
    grammars = [(tool.name, tool.lark) for tool in tools if tool.lark is not None]
    if not grammars:
        return schema, "json_schema"
    rules = [f"text_{number}" for number in range(len(grammars))]
    # The first character must decide: llguidance's lexer takes the longest match and does not backtrack.
    heads = [
        json.dumps(f"{json.dumps(name, ensure_ascii=False)}\n", ensure_ascii=False) for name, _ in grammars
    ]
    lines = [f"{rule}: {head} @{rule}_" for rule, head in zip(rules, heads, strict=True)]
    parts: list[dict[str, Any]] = []
    if len(grammars) < len(tools):
        rules.append("@calls")
        parts.append({"name": "calls", "json_schema": {**json.loads(schema), "x-guidance": _COMPACT}})
    top = "\n".join([f"start: {' | '.join(rules)}", *lines])
    parts += [{"name": f"text_{number}_", "lark_grammar": text} for number, (_, text) in enumerate(grammars)]
    return json.dumps({"grammars": [{"name": "top", "lark_grammar": top}, *parts]}), "llguidance"


def forced_call_schema(tools: Sequence[ForcedTool]) -> str:
    """Return the JSON schema of a call of one of the tools, for `GenerationRequest.grammar`.

    References inside a tool's parameters remain valid. Parameters without a type are of type object.
    """
    calls: list[dict[str, Any]] = []
    for number, tool in enumerate(tools):
        parameters = tool.parameters or {}
        if not _TYPE_KEYWORDS & parameters.keys():
            parameters = {"type": "object", **parameters}
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    "arguments": {"$id": f"urn:tool:{number}", **parameters},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return json.dumps(calls[0] if len(calls) == 1 else {"anyOf": calls})


def _json_values(text: str) -> object:
    """Return the consecutive JSON values in a text, lists flattened; None if there is anything but JSON."""
    fenced = _FENCE.fullmatch(text)
    if fenced:
        text = fenced[1]
    decoder = json.JSONDecoder()
    values: list[object] = []
    at = _skip_separators(text, 0)
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.extend(value if isinstance(value, list) else [value])
        at = _skip_separators(text, at)
    return values


def _skip_separators(text: str, at: int) -> int:
    match = _SEPARATORS.match(text, at)
    return match.end() if match else at


def _parse_calls(value: object, first_index: int) -> tuple[ToolCall, ...] | None:
    found = value if isinstance(value, list) else [value]
    calls: list[ToolCall] = []
    for index, item in enumerate(found, first_index):
        call = _parse_call(item, index)
        if call is None:
            return None
        calls.append(call)
    return tuple(calls) or None


def _parse_call(item: object, index: int) -> ToolCall | None:
    if not isinstance(item, dict):
        return None
    inner = item.get("function")
    call = inner if isinstance(inner, dict) else item
    name = call.get("name")
    arguments = _arguments_json(call.get("arguments", call.get("parameters")))
    if not isinstance(name, str) or not _NAME.fullmatch(name) or arguments is None:
        return None
    given = item.get("id")
    call_id = given if isinstance(given, str) and _ID.fullmatch(given) else f"call_{secrets.token_hex(12)}"
    return ToolCall(index, call_id, name, arguments)


def _arguments_json(value: object) -> str | None:
    """Return arguments as the text of a JSON object; None if they are something else."""
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.strip() else {}
        if value is None:
            value = {}
        if not isinstance(value, dict):
            return None
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # not JSON, or not representable in JSON
        return None
