"""Reads the tool calls of an answer that a limit cut off: each with its arguments as far as they came.

What a client needs to see is a call that is not whole, never the text in which calls are wrapped here.
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
_BARE = re.compile(r'\s*"(?P<name>(?:[^"\\]|\\.)*)(?P<whole>")?\n?(?P<text>.*)', re.DOTALL)
_ARGUMENTS = re.compile(r'\s*,\s*"(?:arguments|parameters)"\s*:\s*')
_BEFORE_NAME = re.compile(
    r'[\s\[]*(?:\{\s*(?:"(?:n(?:a(?:m(?:e(?:"\s*(?::\s*(?:"(?:[^"\\]|\\.)*\\?)?)?)?)?)?)?)?)?)?', re.DOTALL
)
_BETWEEN = re.compile(r"[\s,;]*")
_LIST = re.compile(r"\s*\[")
_UNFINISHED = "\ufffd"
"""What a detokenizer makes of the first bytes of a character whose others never came."""


def forced_call(text: str, tools: Sequence[Mapping[str, Any]], *, ended: bool = True) -> ToolCall | None:
    """Return the call that an answer bound by `forced_call_grammar` is, however much there is of it.

    Args:
        text: the answer, whole or cut off anywhere.
        tools: the tools that the grammar was made from.
        ended: the model ended it, rather than a limit; a bare text does not show that.

    Returns:
        The call, its arguments as the model wrote them; None where it is not decided which tool it is.
    """
    names = [str(tool.get("function", tool).get("name")) for tool in tools]
    if text.lstrip().startswith('"'):
        return _bare(text, names, ended)
    return _beginning(text, names, 0, known=True) if text else None


def _bare(text: str, names: Sequence[str], ended: bool) -> ToolCall | None:
    """Return the call of a tool with a grammar: its name in quotes, a line break, and its text."""
    found = _BARE.match(text)
    if found is None:
        return None
    if found["whole"]:
        name = _unquoted(found["name"])
        arguments = json.dumps(
            {"input": found["text"].rstrip("" if ended else _UNFINISHED)}, ensure_ascii=False
        )
    else:
        likely = {one for one in names if _quoted(one).startswith(found["name"].rstrip(_UNFINISHED))}
        name, arguments = likely.pop() if len(likely) == 1 else None, ""
    if name is None:
        return None
    return ToolCall(0, f"call_{secrets.token_hex(12)}", name, arguments, cut=not ended or not arguments)


def cut_calls(
    payload: str, tools: Sequence[Mapping[str, Any]], *, first_index: int = 0
) -> tuple[ToolCall, ...] | None:
    """Return the calls in the payload of a block that was cut off; the last one may be cut off itself.

    Only calls in JSON are understood: `{"name": …, "arguments": …}`, one after another or in a list.

    Args:
        payload: what stands behind the start marker.
        tools: the request's tools; the name of one of them may be cut off where it is still unique.
        first_index: index of the first call; the next ones count on.

    Returns:
        None where the payload is something else, and empty where no call has got as far as its name.
    """
    opening = _LIST.match(payload)
    at = opening.end() if opening else 0
    calls: list[ToolCall] = []
    decoder = json.JSONDecoder()
    while True:
        blanks = _BETWEEN.match(payload, at)
        at = blanks.end() if blanks else at
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
    last = _beginning(rest, names, first_index + len(calls), known=False)
    if last is None and _BEFORE_NAME.fullmatch(rest) is None:
        return None
    return (*calls, last) if last is not None else tuple(calls)


def _beginning(text: str, names: Iterable[str], index: int, *, known: bool) -> ToolCall | None:
    """Return what a text is the beginning of.

    Args:
        text: the text of one call.
        names: names of the tools.
        index: of the call.
        known: the name can be no other than one of these, even where nothing of it is there yet.
    """
    found = _NAME.match(text)
    if found is not None and found["whole"]:
        name = _unquoted(found["name"])
        rest = text[found.end() :]
    else:
        begun = found["name"] if found is not None else ""
        likely = {one for one in names if _quoted(one).startswith(begun.rstrip(_UNFINISHED))}
        if len(likely) != 1 or not (known or begun):
            return None
        name, rest = likely.pop(), ""
    if name is None:
        return None
    key = _ARGUMENTS.match(rest)
    text = rest[key.end() :] if key is not None else ""
    call = ToolCall(index, f"call_{secrets.token_hex(12)}", name, text.rstrip(_UNFINISHED), cut=True)
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return call if known else _plausible(call)
    if known:
        return replace(call, arguments=text[:end], cut=False)
    whole = parse_tool_calls(f'{{"name": {json.dumps(name)}, "arguments": {text[:end]}}}', first_index=index)
    return whole[0] if whole else None


def _plausible(call: ToolCall) -> ToolCall | None:
    """Return a call whose arguments a model wrote freely, or None where they cannot become an object."""
    if not call.arguments:
        return call
    try:
        begun = from_json(call.arguments, allow_partial="trailing-strings")
    except ValueError:
        return None
    if isinstance(begun, str):  # an object inside a text
        return replace(call, arguments=begun)
    return call if isinstance(begun, dict) else None


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _unquoted(name: str) -> str | None:
    try:
        return str(json.loads(f'"{name}"', strict=False))
    except ValueError:
        return None
