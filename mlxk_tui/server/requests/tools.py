"""The tools of a request: which of them the model hears of, how it calls them, and what a client is told.

A chat template knows functions only. A custom tool, which takes a text, is told as a function of one text; a
tool of a namespace as a function whose name begins with the namespace's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from mlxk_tui.engine.formats.tool_calls import CUSTOM_INPUT, ForcedTool
from mlxk_tui.engine.generation import ToolCall
from mlxk_tui.server.errors import invalid
from mlxk_tui.server.requests.chat_request import AllowedTools, ChatRequest, Tool, ToolChoice

_DESCRIBED = {
    "regex": "Its input is a text that this regular expression matches as a whole:",
    "lark": "Its input is a text of this grammar, written in Lark:",
}


def chosen_tools(asked: ChatRequest) -> list[Tool]:
    """Return the tools that the model hears of.

    Raises:
        ApiError: 400: a tool is incomplete, or the choice names none of them.
    """
    tools = list(_given(asked))
    choice = _choice_of(asked)
    for number, tool in enumerate(tools):
        if tool.body is None:
            raise invalid(f"tools[{number}]: it needs its '{tool.type}'.", f"tools[{number}].{tool.type}")
    if choice == "none":
        return []
    if isinstance(choice, ToolChoice):
        if choice.allowed_tools is not None:
            tools = _allowed(tools, choice.allowed_tools)
            choice = choice.allowed_tools.mode
        else:
            return [_named(tools, choice)]
    if choice == "required" and not tools:
        raise invalid("tool_choice: 'required' needs tools.", "tool_choice")
    return tools


def forces_tool(asked: ChatRequest) -> bool:
    """Tell whether the answer has to be a tool call."""
    choice = _choice_of(asked)
    if isinstance(choice, ToolChoice):
        return choice.allowed_tools is None or choice.allowed_tools.mode == "required"
    return choice == "required"


def _given(asked: ChatRequest) -> Sequence[Tool]:
    if asked.functions is None:
        return asked.tools or ()
    if asked.tools is not None:
        raise invalid("functions: it is the old name of tools. Send one of them.", "functions")
    return [Tool(type="function", function=function) for function in asked.functions]


def _choice_of(asked: ChatRequest) -> str | ToolChoice | None:
    if asked.functions is None or asked.function_call is None:
        return asked.tool_choice
    if isinstance(asked.function_call, str):
        return asked.function_call
    return ToolChoice(type="function", function=asked.function_call)


def _named(tools: Sequence[Tool], choice: ToolChoice) -> Tool:
    wanted = choice.custom if choice.type == "custom" else choice.function
    if wanted is None or choice.type == "allowed_tools":
        raise invalid(f"tool_choice: type '{choice.type}' needs its '{choice.type}'.", "tool_choice")
    for tool in tools:
        if tool.type == choice.type and tool.name == wanted.name:
            return tool
    raise invalid(f"tool_choice: there is no tool '{wanted.name[:60]}' in tools.", "tool_choice")


def _allowed(tools: Sequence[Tool], allowed: AllowedTools) -> list[Tool]:
    names = {(tool.type, tool.named.name) for tool in allowed.tools if tool.named is not None}
    return [tool for tool in tools if (tool.type, tool.name) in names]


def function_of(tool: Tool) -> dict[str, Any]:
    """Return a tool as chat templates want it.

    Raises:
        ApiError: 400: it is not whole.
    """
    if tool.body is None:
        raise invalid(f"tools: one of type '{tool.type}' needs its '{tool.type}'.", "tools")
    if tool.custom is None or tool.type == "function":
        function = tool.function.model_dump(exclude_none=True) if tool.function is not None else {}
        return {"type": "function", "function": function}
    description = [tool.custom.description or ""]
    format_ = tool.custom.format
    grammar = format_.syntax_and_definition if format_ is not None else None
    if grammar is not None:
        description.append(f"{_DESCRIBED[grammar[0]]}\n{grammar[1]}")
    text = "\n\n".join(part for part in description if part)
    function = {"name": tool.name, "parameters": CUSTOM_INPUT}
    return {"type": "function", "function": {**function, "description": text} if text else function}


def forced_tool_of(tool: Tool) -> ForcedTool:
    """Return a tool as the grammar of a forced call takes it."""
    if tool.custom is None or tool.type == "function":
        parameters = tool.function.parameters if tool.function is not None else None
        return ForcedTool(tool.name, parameters=parameters)
    format_ = tool.custom.format
    syntax, definition = (format_.syntax_and_definition if format_ is not None else None) or ("", "")
    if syntax == "lark":
        return ForcedTool(tool.name, lark=definition)
    text = {"type": "string", "pattern": f"^(?:{definition})$"} if syntax == "regex" else {"type": "string"}
    return ForcedTool(tool.name, parameters={**CUSTOM_INPUT, "properties": {"input": text}})


def input_of(call: ToolCall) -> str:
    """Return the text that a custom tool was called with, as far as it came."""
    try:
        value = from_json(call.arguments, allow_partial="trailing-strings")
    except ValueError:
        return call.arguments
    if not isinstance(value, dict):
        return call.arguments
    given = value.get("input", next(iter(value.values()), ""))
    return given if isinstance(given, str) else json.dumps(given)


def customs_of(tools: Sequence[Tool]) -> frozenset[str]:
    """Return the names of the custom tools."""
    return frozenset(tool.name for tool in tools if tool.type == "custom")
