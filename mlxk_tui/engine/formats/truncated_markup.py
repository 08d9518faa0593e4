"""Reads the tool calls in tags that a limit cut off: each with the parameters that have come whole.

`_STYLES` says how the parsers of mlx-lm (0.32) want such calls written. The values are read by the parser,
from a call that is closed behind its last whole parameter: some parsers take whatever there is for a whole
call, so none may see the cut text.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace

from mlxk_tui.engine.formats.tool_calls import Parser, Tools, parse_tool_calls
from mlxk_tui.engine.generation import ToolCall

_UNFINISHED = "\ufffd"
"""What a detokenizer makes of the first bytes of a character whose others never came."""
_QUOTED = r"""["']?(?P<name>[^\s"'<>]+)["']?\s*"""
_ATTRIBUTES = r"(?:(?!<\|sep\|>).)*<\|sep\|>"


@dataclass(frozen=True)
class _Style:
    """How one family writes calls."""

    start: str
    """What stands before a name."""
    head: str
    """Pattern of the beginning of a call, to the end of its name."""
    opening: str
    """What a parameter begins with."""
    parameter: str
    """Pattern of a whole parameter."""
    end: str = ""
    """What ends a call; empty where only the block ends."""


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
"""By the module of mlx-lm's parser."""


def writes_markup(parser: Parser | None) -> bool:
    """Tell whether a parser is one of calls in tags."""
    return _style_of(parser) is not None


def cut_markup(
    payload: str, parser: Parser, tools: Tools = (), *, first_index: int = 0, block_end: str = ""
) -> tuple[ToolCall, ...] | None:
    """Return the calls in the payload of a block that was cut off; the last one may be cut off itself.

    Its arguments are an object without the closing brace, or empty where no parameter is whole: nobody can
    take them for all that there were to be.

    Args:
        payload: what stands behind the start marker.
        parser: mlx-lm's parser of the model.
        tools: the request's tools.
        first_index: index of the first call; the next ones count on.
        block_end: the end marker, of which the payload may hold the beginning.

    Returns:
        None where the payload is something else, and empty where no call has got as far as its name.
    """
    style = _style_of(parser)
    if style is None:
        return None
    calls: list[ToolCall] = []
    rest = payload.rstrip(_UNFINISHED).strip()
    while rest:
        index = first_index + len(calls)
        head = re.match(style.head, rest)
        if head is None:
            begun = _begun(style, rest, tools, index)
            if begun is None and not (calls and block_end.startswith(rest)):
                return None
            return (*calls, *(begun or ()))
        end = head.end()
        while parameter := re.compile(rf"\s*{style.parameter}", re.DOTALL).match(rest, end):
            end = parameter.end()
        behind = rest[end:].lstrip()
        whole = bool(style.end) and behind.startswith(style.end)
        if not whole and not _may_follow(style, behind, block_end):
            return None
        if not whole and end == head.end():
            return (*calls, _without_arguments(head["name"], index))
        found = parse_tool_calls(rest[:end] + style.end, parser=parser, tools=tools, first_index=index)
        if found is None or len(found) != 1 or found[0].name != head["name"]:
            return None
        if not whole:
            return (*calls, _unclosed(found[0]))
        calls.append(found[0])
        rest = behind.removeprefix(style.end).strip()
    return tuple(calls)


def _style_of(parser: Parser | None) -> _Style | None:
    return _STYLES.get(str(getattr(parser, "__module__", "")).rpartition(".")[2])


def _begun(style: _Style, text: str, tools: Tools, index: int) -> tuple[ToolCall, ...] | None:
    """Return what there is of a call whose name has no end yet; None where it cannot become one."""
    if style.start:
        name = re.sub(r"<[|sep]*$", "", text.removeprefix(style.start))
        begun = style.start.startswith(text) or (text.startswith(style.start) and not re.search("[<>]", name))
        return () if begun else None
    name = text.strip("\"'")
    names = [str(tool.get("function", tool).get("name")) for tool in tools]
    likely = [one for one in names if one.startswith(name)]
    if likely == [name]:
        return (_without_arguments(name, index),)
    return () if likely else None


def _may_follow(style: _Style, text: str, block_end: str) -> bool:
    """Tell whether a text can be the beginning of a parameter, or of what ends a call or the block."""
    return text.startswith(style.opening) or any(
        each.startswith(text) for each in (style.opening, style.end, block_end)
    )


def _without_arguments(name: str, index: int) -> ToolCall:
    return ToolCall(index, f"call_{secrets.token_hex(12)}", name, "", cut=True)


def _unclosed(call: ToolCall) -> ToolCall:
    arguments = call.arguments.removesuffix("}").rstrip()
    return replace(call, arguments="" if arguments == "{" else arguments, cut=True)
