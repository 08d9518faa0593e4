"""The tools of a Responses request: functions, custom tools, and namespaces of both.

In the prompt all of them are functions: a tool `look` in the namespace `files` becomes `files__look`. The
response contains the client's names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from mlxk_tui.engine.generation import ToolCall
from mlxk_tui.server.errors import invalid
from mlxk_tui.server.requests.chat_request import MAX_TOOLS, CustomFormat
from mlxk_tui.server.requests.schema import Schema
from mlxk_tui.server.requests.tools import custom_input

_SUPPORTED_TYPES = {"function", "custom"}
"""Tool types that models can call; others are run by OpenAI or are specific to one client."""
_SEPARATOR = "__"


class ResponsesInnerTool(Schema):
    """A tool in a namespace."""

    type: str
    name: str | None = Field(None, min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: CustomFormat | None = None


class ResponsesTool(Schema):
    """A tool or a namespace; types other than functions and custom tools are ignored."""

    type: str
    name: str | None = Field(None, min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: CustomFormat | None = None
    tools: list[ResponsesInnerTool] | None = Field(None, max_length=MAX_TOOLS)


@dataclass(frozen=True)
class CallableTool:
    """A tool in the prompt."""

    qualified_name: str
    """Its name in the prompt, with the namespace."""
    name: str
    """Its name in the request."""
    namespace: str | None
    tool: ResponsesTool | ResponsesInnerTool

    @property
    def chat_json(self) -> dict[str, Any]:
        """The tool as in a chat request."""
        named = {"name": self.qualified_name, "description": self.tool.description}
        if self.tool.type == "custom":
            format_ = self.tool.format.model_dump() if self.tool.format is not None else None
            return {"type": "custom", "custom": {**named, "format": format_}}
        parameters = self.tool.parameters or {"type": "object"}
        return {"type": "function", "function": {**named, "parameters": parameters}}


class Toolbox:
    """The tools of one request, with the mapping between qualified and client names.

    Raises:
        ApiError: 400 if a tool has no name, two have the same, or there are too many.
    """

    def __init__(self, tools: Iterable[ResponsesTool]) -> None:
        self.tools: list[CallableTool] = []
        self.echoed: list[dict[str, Any]] = []
        """The supported tools, as the response repeats them."""
        self._by_qualified_name: dict[str, CallableTool] = {}
        self._by_name: dict[tuple[str | None, str], CallableTool] = {}
        for number, tool in enumerate(tools):
            where = f"tools[{number}]"
            if tool.type == "namespace":
                inner = list(tool.tools or ())
                name = _check_name(tool, where)
                added = [self._add(item, name, f"{where}.tools[{n}]") for n, item in enumerate(inner)]
                echoed = [tool_json(item.tool) for item in added if item is not None]
                namespace = {"type": "namespace", "name": name, "description": tool.description or ""}
                self.echoed.append({**namespace, "tools": echoed})
            elif self._add(tool, None, where) is not None:
                self.echoed.append(tool_json(tool))
        if len(self.tools) > MAX_TOOLS:
            message = f"tools: at most {MAX_TOOLS} are allowed, including those in namespaces."
            raise invalid(message, "tools")

    def _add(
        self, tool: ResponsesTool | ResponsesInnerTool, namespace: str | None, where: str
    ) -> CallableTool | None:
        if tool.type not in _SUPPORTED_TYPES:
            return None
        name = _check_name(tool, where)
        added = CallableTool(self.qualify(namespace, name), name, namespace, tool)
        if self._by_qualified_name.setdefault(added.qualified_name, added) is not added:
            raise invalid(f"{where}: another tool has the same name, '{name[:60]}'.", f"{where}.name")
        self._by_name[namespace, name] = added
        self.tools.append(added)
        return added

    @staticmethod
    def qualify(namespace: str | None, name: str) -> str:
        """Return the name of a tool in the prompt."""
        if namespace is None:
            return name
        return f"{namespace}{name}" if namespace.endswith(_SEPARATOR) else f"{namespace}{_SEPARATOR}{name}"

    def find(self, kind: str, name: str, namespace: str | None = None) -> CallableTool | None:
        """Return a tool by the client's names; the namespace may be omitted if the name is unique."""
        found = self._by_name.get((namespace, name))
        if found is None and namespace is None:
            found = self._by_qualified_name.get(name) or self._find_unique(name)
        return found if found is not None and found.tool.type == kind else None

    def find_called(self, call: ToolCall) -> CallableTool | None:
        """Return the tool of a call; None for an unknown name. Models may omit the namespace."""
        return self._by_qualified_name.get(call.name) or self._find_unique(call.name)

    def _find_unique(self, name: str) -> CallableTool | None:
        same = [tool for tool in self.tools if tool.name == name]
        return same[0] if len(same) == 1 else None

    def call_json(self, call: ToolCall, *, empty: bool) -> dict[str, Any]:
        """Return a call as an output item without id and status, and without arguments if `empty`."""
        tool = self.find_called(call)
        item: dict[str, Any] = {"call_id": call.id, "name": tool.name if tool is not None else call.name}
        if tool is not None and tool.namespace is not None:
            item["namespace"] = tool.namespace
        if tool is not None and tool.tool.type == "custom":
            return {"type": "custom_tool_call", **item, "input": "" if empty else custom_input(call)}
        return {"type": "function_call", **item, "arguments": "" if empty else call.arguments}


def _check_name(tool: ResponsesTool | ResponsesInnerTool, where: str) -> str:
    if tool.name is None:
        raise invalid(f"{where}: a tool of type '{tool.type}' requires a name.", f"{where}.name")
    return tool.name


def tool_json(tool: ResponsesTool | ResponsesInnerTool) -> dict[str, Any]:
    """Return a function or a custom tool as the response repeats it."""
    named = {"type": tool.type, "name": tool.name, "description": tool.description}
    if tool.type == "custom":
        format_ = tool.format.model_dump(exclude_none=True) if tool.format is not None else {"type": "text"}
        return {**named, "format": format_}
    return {**named, "parameters": tool.parameters, "strict": bool(tool.strict)}
