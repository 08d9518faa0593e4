"""The tools of a request of the Responses API: functions, custom tools, and namespaces that hold either.

The model hears of plain functions: a tool `look` of the namespace `files` is `files__look` to it, and what it
calls goes back under the client's own names.
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
from mlxk_tui.server.requests.tools import input_of

_CALLED = {"function", "custom"}
"""Types of tools that a model here can call; the others are run by OpenAI or by one client alone."""
_BETWEEN = "__"


class ResponsesInnerTool(Schema):
    """A tool of a namespace."""

    type: str
    name: str | None = Field(None, min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: CustomFormat | None = None


class ResponsesTool(Schema):
    """A tool; only functions and custom tools are called here, and those of namespaces."""

    type: str
    name: str | None = Field(None, min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: CustomFormat | None = None
    tools: list[ResponsesInnerTool] | None = Field(None, max_length=MAX_TOOLS)


@dataclass(frozen=True)
class OfferedTool:
    """A tool that the model hears of."""

    heard: str
    """What the model calls it."""
    name: str
    """What the client calls it."""
    namespace: str | None
    tool: ResponsesTool | ResponsesInnerTool

    @property
    def chat_json(self) -> dict[str, Any]:
        """The same tool as the chat API has it."""
        named = {"name": self.heard, "description": self.tool.description}
        if self.tool.type == "custom":
            format_ = self.tool.format.model_dump() if self.tool.format is not None else None
            return {"type": "custom", "custom": {**named, "format": format_}}
        parameters = self.tool.parameters or {"type": "object"}
        return {"type": "function", "function": {**named, "parameters": parameters}}


class Toolbox:
    """The tools of one request, and what each is called by whom.

    Raises:
        ApiError: 400: a tool has no name, or there are too many.
    """

    def __init__(self, tools: Iterable[ResponsesTool]) -> None:
        self.offered: list[OfferedTool] = []
        self.shown: list[dict[str, Any]] = []
        """The tools that count, as a response repeats them."""
        self._heard: dict[str, OfferedTool] = {}
        self._named: dict[tuple[str | None, str], OfferedTool] = {}
        for number, tool in enumerate(tools):
            where = f"tools[{number}]"
            if tool.type == "namespace":
                inner = list(tool.tools or ())
                name = _name_of(tool, where)
                told = [self._add(one, name, f"{where}.tools[{n}]") for n, one in enumerate(inner)]
                kept = [shown_json(one.tool) for one in told if one is not None]
                about = {"type": "namespace", "name": name, "description": tool.description or ""}
                self.shown.append({**about, "tools": kept})
            elif self._add(tool, None, where) is not None:
                self.shown.append(shown_json(tool))
        if len(self.offered) > MAX_TOOLS:
            raise invalid(f"tools: at most {MAX_TOOLS} are offered, those of namespaces included.", "tools")

    def _add(
        self, tool: ResponsesTool | ResponsesInnerTool, namespace: str | None, where: str
    ) -> OfferedTool | None:
        if tool.type not in _CALLED:
            return None
        name = _name_of(tool, where)
        offered = OfferedTool(self.heard(namespace, name), name, namespace, tool)
        if self._heard.setdefault(offered.heard, offered) is not offered:
            raise invalid(f"{where}: there is another tool of this name, '{name[:60]}'.", f"{where}.name")
        self._named[namespace, name] = offered
        self.offered.append(offered)
        return offered

    @staticmethod
    def heard(namespace: str | None, name: str) -> str:
        """Return what the model calls a tool."""
        if namespace is None:
            return name
        return f"{namespace}{name}" if namespace.endswith(_BETWEEN) else f"{namespace}{_BETWEEN}{name}"

    def find(self, kind: str, name: str, namespace: str | None = None) -> OfferedTool | None:
        """Return a tool by the client's names; a unique name will do without its namespace."""
        found = self._named.get((namespace, name))
        if found is None and namespace is None:
            found = self._heard.get(name) or self._only(name)
        return found if found is not None and found.tool.type == kind else None

    def of(self, call: ToolCall) -> OfferedTool | None:
        """Return the tool that was called; a free call may leave the namespace out, or invent a name."""
        return self._heard.get(call.name) or self._only(call.name)

    def _only(self, name: str) -> OfferedTool | None:
        same = [tool for tool in self.offered if tool.name == name]
        return same[0] if len(same) == 1 else None

    def call_json(self, call: ToolCall, *, begun: bool) -> dict[str, Any]:
        """Return a call as an item of the output, without id and status; a `begun` one is empty."""
        tool = self.of(call)
        item: dict[str, Any] = {"call_id": call.id, "name": tool.name if tool is not None else call.name}
        if tool is not None and tool.namespace is not None:
            item["namespace"] = tool.namespace
        if tool is not None and tool.tool.type == "custom":
            return {"type": "custom_tool_call", **item, "input": "" if begun else input_of(call)}
        return {"type": "function_call", **item, "arguments": "" if begun else call.arguments}


def _name_of(tool: ResponsesTool | ResponsesInnerTool, where: str) -> str:
    if tool.name is None:
        raise invalid(f"{where}: a tool of type '{tool.type}' needs its name.", f"{where}.name")
    return tool.name


def shown_json(tool: ResponsesTool | ResponsesInnerTool) -> dict[str, Any]:
    """Return a function or a custom tool as a response repeats it."""
    named = {"type": tool.type, "name": tool.name, "description": tool.description}
    if tool.type == "custom":
        format_ = tool.format.model_dump(exclude_none=True) if tool.format is not None else {"type": "text"}
        return {**named, "format": format_}
    return {**named, "parameters": tool.parameters, "strict": bool(tool.strict)}
