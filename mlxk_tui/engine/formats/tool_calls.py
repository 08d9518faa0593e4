"""Reads the payload of a tool call: with the model's own parser, else as JSON.

The payload is the model's output, so anything may be in it. What is no tool call is reported as None,
and the caller shows the text instead of losing it.
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
"""Tools in OpenAI's shape."""
Parser = Callable[[str, Any], Any]
"""mlx-lm's `tokenizer.tool_parser(payload, tools)`: a call or a list of calls, or it raises anything."""

_COMPACT = {"whitespace_flexible": False}
"""Options of llguidance for a JSON schema: no blanks but those in texts."""
CUSTOM_INPUT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""What a tool that takes a text takes where it is told as a function."""
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


@dataclass(frozen=True)
class ForcedTool:
    """One of the tools that an answer has to be a call of."""

    name: str
    parameters: Mapping[str, Any] | None = None
    """JSON schema of its arguments."""
    lark: str | None = None
    """Grammar of its one text, where it takes that instead: a start rule `start`."""


def forced_call_grammar(tools: Sequence[ForcedTool]) -> tuple[str, GrammarSyntax]:
    """Return what makes an answer a call of one of some tools, and how that is written.

    An answer that follows it is read by `cut_calls.forced_call`: an object with `name` and `arguments`, or,
    for a tool with a grammar of its own, its name as a JSON string, a line break, and the bare text.
    """
    schema = forced_call_schema([tool for tool in tools if tool.lark is None])
    grammars = [(tool.name, tool.lark) for tool in tools if tool.lark is not None]
    if not grammars:
        return schema, "json_schema"
    rules = [f"text_{number}" for number in range(len(grammars))]
    # The first character decides: llguidance's lexer takes the longest match and never goes back.
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
    """Return the JSON schema of a call of one of some tools, for `Generation.grammar`.

    References inside a tool's parameters keep their meaning; parameters that do not say what they are, are
    an object.
    """
    calls: list[dict[str, Any]] = []
    for number, tool in enumerate(tools):
        parameters = tool.parameters or {}
        if not _SAYS_WHAT_IT_IS & parameters.keys():
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
