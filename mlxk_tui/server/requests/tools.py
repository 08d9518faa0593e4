"""The tools of a chat request: selection by `tool_choice`, and conversion for chat templates and grammars.

Chat templates know functions only. A custom tool, whose input is text, becomes a function with one string
parameter; a tool in a namespace becomes a function with the namespace as prefix of its name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from mlxk_tui.engine.formats.tool_calls import CUSTOM_TOOL_SCHEMA, ForcedTool
from mlxk_tui.engine.generation import ToolCall
from mlxk_tui.server.errors import invalid
from mlxk_tui.server.requests.chat_request import AllowedTools, ChatRequest, Tool, ToolChoice

_GRAMMAR_PROMPTS = {
    "regex": "Its input is a text that this regular expression matches as a whole:",
    "lark": "Its input is a text of this grammar, written in Lark:",
}
"""Text for the model, added to the description of a custom tool before its grammar."""


def select_tools(request: ChatRequest) -> list[Tool]:
    """Return the tools that are in the prompt, as `tool_choice` selects them.

    Raises:
        ApiError: 400 if a tool is incomplete, or `tool_choice` names an unknown tool.
    """
    tools = list(_request_tools(request))
    choice = _tool_choice(request)
    for number, tool in enumerate(tools):
        if tool.body is None:
            raise invalid(f"tools[{number}]: '{tool.type}' is missing.", f"tools[{number}].{tool.type}")
    if choice == "none":
        return []
    if isinstance(choice, ToolChoice):
        if choice.allowed_tools is not None:
            tools = _allowed(tools, choice.allowed_tools)
            choice = choice.allowed_tools.mode
        else:
            return [_find_tool(tools, choice)]
    if choice == "required" and not tools:
        raise invalid("tool_choice: 'required' requires tools.", "tool_choice")
    return tools


def requires_tool_call(request: ChatRequest) -> bool:
    """Return whether the response must be a tool call."""
    choice = _tool_choice(request)
    if isinstance(choice, ToolChoice):
        return choice.allowed_tools is None or choice.allowed_tools.mode == "required"
    return choice == "required"


def _request_tools(request: ChatRequest) -> Sequence[Tool]:
    if request.functions is None:
        return request.tools or ()
    if request.tools is not None:
        raise invalid("functions: it can't be combined with tools. Send one of them.", "functions")
    return [Tool(type="function", function=function) for function in request.functions]


def _tool_choice(request: ChatRequest) -> str | ToolChoice | None:
    if request.functions is None or request.function_call is None:
        return request.tool_choice
    if isinstance(request.function_call, str):
        return request.function_call
    return ToolChoice(type="function", function=request.function_call)


def _find_tool(tools: Sequence[Tool], choice: ToolChoice) -> Tool:
    named = choice.custom if choice.type == "custom" else choice.function
    if named is None or choice.type == "allowed_tools":
        raise invalid(f"tool_choice: '{choice.type}' is missing.", "tool_choice")
    for tool in tools:
        if tool.type == choice.type and tool.name == named.name:
            return tool
    raise invalid(f"tool_choice: tool '{named.name[:60]}' is not in tools.", "tool_choice")


def _allowed(tools: Sequence[Tool], allowed: AllowedTools) -> list[Tool]:
    names = {(tool.type, tool.named.name) for tool in allowed.tools if tool.named is not None}
    return [tool for tool in tools if (tool.type, tool.name) in names]


def to_function(tool: Tool) -> dict[str, Any]:
    """Convert a tool to the format of chat templates.

    Raises:
        ApiError: 400 if the field of its type is missing.
    """
    if tool.body is None:
        raise invalid(f"tools: '{tool.type}' is missing in a tool of this type.", "tools")
    if tool.custom is None or tool.type == "function":
        function = tool.function.model_dump(exclude_none=True) if tool.function is not None else {}
        return {"type": "function", "function": function}
    description = [tool.custom.description or ""]
    format_ = tool.custom.format
    grammar = format_.syntax_and_definition if format_ is not None else None
    if grammar is not None:
        description.append(f"{_GRAMMAR_PROMPTS[grammar[0]]}\n{grammar[1]}")
    text = "\n\n".join(part for part in description if part)
    function = {"name": tool.name, "parameters": CUSTOM_TOOL_SCHEMA}
    return {"type": "function", "function": {**function, "description": text} if text else function}


def to_forced_tool(tool: Tool) -> ForcedTool:
    """Convert a tool for the grammar of a forced call."""
    if tool.custom is None or tool.type == "function":
        parameters = tool.function.parameters if tool.function is not None else None
        return ForcedTool(tool.name, parameters=parameters)
    format_ = tool.custom.format
    syntax, definition = (format_.syntax_and_definition if format_ is not None else None) or ("", "")
    if syntax == "lark":
        return ForcedTool(tool.name, lark=definition)
    text = {"type": "string", "pattern": f"^(?:{definition})$"} if syntax == "regex" else {"type": "string"}
    return ForcedTool(tool.name, parameters={**CUSTOM_TOOL_SCHEMA, "properties": {"input": text}})


def custom_input(call: ToolCall) -> str:
    """Return the input of a call of a custom tool, also if the arguments are truncated."""
    try:
        value = from_json(call.arguments, allow_partial="trailing-strings")
    except ValueError:
        return call.arguments
    if not isinstance(value, dict):
        return call.arguments
    text = value.get("input", next(iter(value.values()), ""))
    return text if isinstance(text, str) else json.dumps(text)


def custom_tool_names(tools: Sequence[Tool]) -> frozenset[str]:
    """Return the names of the custom tools."""
    return frozenset(tool.name for tool in tools if tool.type == "custom")
