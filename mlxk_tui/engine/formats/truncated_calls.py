"""Parses JSON tool calls in an answer that a token limit truncated, with the arguments so far.

The client should receive an incomplete tool call, not the markup around it as text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from mlxk_tui.engine.formats.tool_calls import parse_tool_calls
from mlxk_tui.engine.generation import ToolCall

_NAME = re.compile(r'\s*\{\s*"name"\s*:\s*"(?P<name>(?:[^"\\]|\\.)*)(?P<whole>")?', re.DOTALL)
_FREE_TEXT_CALL = re.compile(r'\s*"(?P<name>(?:[^"\\]|\\.)*)(?P<whole>")?\n?(?P<text>.*)', re.DOTALL)
_ARGUMENTS = re.compile(r'\s*,\s*"(?:arguments|parameters)"\s*:\s*')
_BEFORE_NAME = re.compile(
    r'[\s\[]*(?:\{\s*(?:"(?:n(?:a(?:m(?:e(?:"\s*(?::\s*(?:"(?:[^"\\]|\\.)*\\?)?)?)?)?)?)?)?)?)?', re.DOTALL
)
_SEPARATORS = re.compile(r"[\s,;]*")
_LIST = re.compile(r"\s*\[")
_UNFINISHED = "\ufffd"
"""Written by a detokenizer for an incomplete UTF-8 character."""


def parse_forced_call(
    text: str, tools: Sequence[Mapping[str, Any]], *, ended: bool = True
) -> ToolCall | None:
    """Parse an answer that follows `forced_call_grammar`, complete or truncated anywhere.

    Args:
        text: the answer.
        tools: the tools that the grammar was made from.
        ended: the model ended the answer, rather than a limit. The text of a free-text tool does not show it.

    Returns:
        The call, with the arguments as the model wrote them; None if the tool is not decided yet.
    """
    names = [str(tool.get("function", tool).get("name")) for tool in tools]
    if text.lstrip().startswith('"'):
        return _parse_free_text_call(text, names, ended)
    return _parse_beginning(text, names, 0, known=True) if text else None


def _parse_free_text_call(text: str, names: Sequence[str], ended: bool) -> ToolCall | None:
    """Parse the call of a free-text tool: its name in quotes, a line break, and its text."""
    found = _FREE_TEXT_CALL.match(text)
    if found is None:
        return None
    if found["whole"]:
        name = _unquoted(found["name"])
        arguments = json.dumps(
            {"input": found["text"].rstrip("" if ended else _UNFINISHED)}, ensure_ascii=False
        )
    else:
        matching = {one for one in names if _quoted(one).startswith(found["name"].rstrip(_UNFINISHED))}
        name, arguments = matching.pop() if len(matching) == 1 else None, ""
    if name is None:
        return None
    return ToolCall(0, f"call_{secrets.token_hex(12)}", name, arguments, truncated=not ended or not arguments)


def parse_truncated_calls(
    payload: str, tools: Sequence[Mapping[str, Any]], *, first_index: int = 0
) -> tuple[ToolCall, ...] | None:
    """Parse the calls in the payload of a truncated block; the last call may be incomplete.

    Only JSON is accepted: `{"name": …, "arguments": …}`, one after another or in a list.

    Args:
        payload: the text after the start marker.
        tools: the request's tools; a truncated name is completed if it matches exactly one of them.
        first_index: index of the first call; the others follow.

    Returns:
        None if the payload is something else; empty if no call has a name yet.
    """
    opening = _LIST.match(payload)
    at = opening.end() if opening else 0
    calls: list[ToolCall] = []
    decoder = json.JSONDecoder()
    while True:
        separators = _SEPARATORS.match(payload, at)
        at = separators.end() if separators else at
        try:
            _, end = decoder.raw_decode(payload, at)
        except (ValueError, RecursionError):
            break
        whole = parse_tool_calls(payload[at:end], first_index=first_index + len(calls))
        if whole is None:
            return None
        calls += whole
        at = end
    rest = payload[at:]
    if _BEFORE_NAME.fullmatch(rest) is None and _NAME.match(rest) is None:
        return tuple(calls) if calls and rest.strip() in {"", "]"} else None
    names = [str(tool.get("function", tool).get("name")) for tool in tools]
    last = _parse_beginning(rest, names, first_index + len(calls), known=False)
    if last is None and _BEFORE_NAME.fullmatch(rest) is None:
        return None
    return (*calls, last) if last is not None else tuple(calls)


def _parse_beginning(text: str, names: Iterable[str], index: int, *, known: bool) -> ToolCall | None:
    """Parse the beginning of a call.

    Args:
        text: the text of one call.
        names: names of the tools.
        index: index of the call.
        known: the call is surely to one of these tools, even if its name has not begun yet.
    """
    found = _NAME.match(text)
    if found is not None and found["whole"]:
        name = _unquoted(found["name"])
        rest = text[found.end() :]
    else:
        partial = found["name"] if found is not None else ""
        matching = {one for one in names if _quoted(one).startswith(partial.rstrip(_UNFINISHED))}
        if len(matching) != 1 or not (known or partial):
            return None
        name, rest = matching.pop(), ""
    if name is None:
        return None
    key = _ARGUMENTS.match(rest)
    text = rest[key.end() :] if key is not None else ""
    call = ToolCall(index, f"call_{secrets.token_hex(12)}", name, text.rstrip(_UNFINISHED), truncated=True)
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return call if known else _checked_call(call)
    if known:
        return replace(call, arguments=text[:end], truncated=False)
    whole = parse_tool_calls(f'{{"name": {json.dumps(name)}, "arguments": {text[:end]}}}', first_index=index)
    return whole[0] if whole else None


def _checked_call(call: ToolCall) -> ToolCall | None:
    """Return a call with unconstrained arguments, or None if they cannot become a JSON object."""
    if not call.arguments:
        return call
    try:
        partial = from_json(call.arguments, allow_partial="trailing-strings")
    except ValueError:
        return None
    if isinstance(partial, str):  # an object inside a JSON string
        return replace(call, arguments=partial)
    return call if isinstance(partial, dict) else None


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _unquoted(name: str) -> str | None:
    try:
        return str(json.loads(f'"{name}"', strict=False))
    except ValueError:
        return None
