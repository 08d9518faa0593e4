"""Parses tool calls in markup that a token limit truncated, with the parameters that are complete.

`_STYLES` describes the formats that the parsers of mlx-lm (0.32) accept. The parser itself reads the values,
from a call that is closed after its last complete parameter. It never gets the truncated text, because some
parsers accept that as a complete call.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace

from mlxk_tui.engine.formats.tool_calls import Parser, Tools, parse_tool_calls
from mlxk_tui.engine.generation import ToolCall

_UNFINISHED = "\ufffd"
"""Written by a detokenizer for an incomplete UTF-8 character."""
_QUOTED = r"""["']?(?P<name>[^\s"'<>]+)["']?\s*"""
_ATTRIBUTES = r"(?:(?!<\|sep\|>).)*<\|sep\|>"


@dataclass(frozen=True)
class _Style:
    """The markup of one model family."""

    start: str
    """The text before a name."""
    head: str
    """Pattern of the beginning of a call, up to the end of its name."""
    opening: str
    """The beginning of a parameter."""
    parameter: str
    """Pattern of a complete parameter."""
    end: str = ""
    """The end of a call; empty if only the end of the block ends it."""


def _keys_and_values(prefix: str) -> _Style:
    key, value = f"{prefix}arg_key", f"{prefix}arg_value"
    return _Style(
        "",
        r"(?P<name>[^\s<>{}\[\]\"]+)(?=\s*<)",
        f"<{key}>",
        rf"<{key}>[^<]*</{key}>(?:\\n|\s)*<{value}>.*?</{value}>",
    )


_STYLES = {
    "qwen3_coder": _Style(
        "<function=",
        r"<function=(?P<name>[^\s<>]+)>",
        "<parameter=",
        r"<parameter=[^\s<>]+>.*?</parameter>",
        "</function>",
    ),
    "glm47": _keys_and_values(""),
    "longcat": _keys_and_values("longcat_"),
    "minimax_m2": _Style(
        "<invoke name=",
        rf"<invoke name={_QUOTED}>",
        "<parameter name=",
        r"<parameter name=[^<>]+>.*?</parameter>",
        "</invoke>",
    ),
    "minicpm5": _Style(
        "", rf"{_QUOTED}>", "<param name=", r"<param\s+name\s*=[^<>]+>.*?</param>", "</function>"
    ),
    "muse_spark": _Style(
        "<atem:invoke name=",
        rf"<atem:invoke name={_QUOTED}>",
        "<atem:parameter name=",
        r"<atem:parameter name=[^<>]+>.*?</atem:parameter>",
        "</atem:invoke>",
    ),
    "kimi_k3": _Style(
        "<|open|>call tool=",
        rf"<\|open\|>call tool={_QUOTED}{_ATTRIBUTES}",
        "<|open|>argument key=",
        rf"<\|open\|>argument key={_ATTRIBUTES}.*?<\|close\|>argument<\|sep\|>",
        "<|close|>call<|sep|>",
    ),
}
"""Styles by the module name of mlx-lm's parser."""


def is_markup_parser(parser: Parser | None) -> bool:
    """Return whether a parser is for one of the markup formats."""
    return _find_style(parser) is not None


def parse_truncated_markup(
    payload: str, parser: Parser, tools: Tools = (), *, first_index: int = 0, block_end: str = ""
) -> tuple[ToolCall, ...] | None:
    """Parse the calls in the payload of a truncated block; the last call may be incomplete.

    The arguments of an incomplete call are an object without its closing brace, or empty if no parameter is
    complete. So they cannot be mistaken for complete arguments.

    Args:
        payload: the text after the start marker.
        parser: mlx-lm's parser of the model.
        tools: the request's tools.
        first_index: index of the first call; the others follow.
        block_end: the end marker of the block; the payload may end with a prefix of it.

    Returns:
        None if the payload is something else; empty if no call has a name yet.
    """
    style = _find_style(parser)
    if style is None:
        return None
    calls: list[ToolCall] = []
    rest = payload.rstrip(_UNFINISHED).strip()
    while rest:
        index = first_index + len(calls)
        head = re.match(style.head, rest)
        if head is None:
            partial = _parse_partial_name(style, rest, tools, index)
            if partial is None and not (calls and block_end.startswith(rest)):
                return None
            return (*calls, *(partial or ()))
        end = head.end()
        while parameter := re.compile(rf"\s*{style.parameter}", re.DOTALL).match(rest, end):
            end = parameter.end()
        after = rest[end:].lstrip()
        whole = bool(style.end) and after.startswith(style.end)
        if not whole and not _may_follow(style, after, block_end):
            return None
        if not whole and end == head.end():
            return (*calls, _without_arguments(head["name"], index))
        found = parse_tool_calls(rest[:end] + style.end, parser=parser, tools=tools, first_index=index)
        if found is None or len(found) != 1 or found[0].name != head["name"]:
            return None
        if not whole:
            return (*calls, _unclosed(found[0]))
        calls.append(found[0])
        rest = after.removeprefix(style.end).strip()
    return tuple(calls)


def _find_style(parser: Parser | None) -> _Style | None:
    return _STYLES.get(str(getattr(parser, "__module__", "")).rpartition(".")[2])


def _parse_partial_name(style: _Style, text: str, tools: Tools, index: int) -> tuple[ToolCall, ...] | None:
    """Parse a call whose name is incomplete; None if the text cannot become a call."""
    if style.start:
        name = re.sub(r"<[|sep]*$", "", text.removeprefix(style.start))
        partial = style.start.startswith(text) or (
            text.startswith(style.start) and not re.search("[<>]", name)
        )
        return () if partial else None
    name = text.strip("\"'")
    names = [str(tool.get("function", tool).get("name")) for tool in tools]
    matching = [one for one in names if one.startswith(name)]
    if matching == [name]:
        return (_without_arguments(name, index),)
    return () if matching else None


def _may_follow(style: _Style, text: str, block_end: str) -> bool:
    """Return whether a text can be the beginning of a parameter, of a call's end or of the block's end."""
    return text.startswith(style.opening) or any(
        each.startswith(text) for each in (style.opening, style.end, block_end)
    )


def _without_arguments(name: str, index: int) -> ToolCall:
    return ToolCall(index, f"call_{secrets.token_hex(12)}", name, "", truncated=True)


def _unclosed(call: ToolCall) -> ToolCall:
    arguments = call.arguments.removesuffix("}").rstrip()
    return replace(call, arguments="" if arguments == "{" else arguments, truncated=True)
