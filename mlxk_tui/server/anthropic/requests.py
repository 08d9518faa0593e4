"""Schemas of Messages requests, and their conversion to chat requests.

Reference: https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.chat_request import MAX_MESSAGES, MAX_STOPS, MAX_TOOLS, ChatRequest
from mlxk_tui.server.requests.json_schemas import (
    INTEGER,
    NON_EMPTY_STRING,
    STRING,
    any_of,
    array,
    enum_schema,
    nullable,
    object_schema,
)
from mlxk_tui.server.requests.schema import ModelName, Schema, parse

_BILLING_PREFIX = "x-anthropic-billing-header:"
_TEXT_BLOCKS = (
    object_schema("type", "text", type=enum_schema("text"), text=STRING),
    object_schema(
        "type",
        "source",
        type=enum_schema("document"),
        source=object_schema("type", "data", type=enum_schema("text"), data=STRING),
    ),
)
"""Content blocks with text."""
_TEXT_BLOCK = {"anyOf": [*_TEXT_BLOCKS]}
_USER_BLOCKS = {
    "anyOf": [
        *_TEXT_BLOCKS,
        object_schema(
            *("type", "tool_use_id"),
            type=enum_schema("tool_result"),
            tool_use_id=NON_EMPTY_STRING,
            content=nullable(STRING, array(_TEXT_BLOCK)),
            is_error=nullable({"type": "boolean"}),
        ),
    ]
}
_ASSISTANT_BLOCKS = {
    "anyOf": [
        *_TEXT_BLOCKS,
        object_schema("type", type=enum_schema("thinking"), thinking=nullable(STRING)),
        object_schema("type", type=enum_schema("redacted_thinking")),
        object_schema(
            *("type", "name"),
            type=enum_schema("tool_use"),
            id=nullable(STRING),
            name=NON_EMPTY_STRING,
            input=nullable({"type": "object"}),
        ),
    ]
}


class MessagesSource(Schema):
    """The source of a document's content."""

    type: str
    data: str | None = None


class MessagesPart(Schema):
    """A content block of a tool result; only text is supported."""

    model_config = ConfigDict(json_schema_extra=any_of(*_TEXT_BLOCKS))

    type: str
    text: str | None = None
    source: MessagesSource | None = None


class MessagesBlock(Schema):
    """A content block of a message; its type determines which fields are used."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[MessagesPart] | None = None
    is_error: bool | None = None
    source: MessagesSource | None = None


class MessagesMessage(Schema):
    """One message of a conversation."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema(
                "role", "content", role=enum_schema("user"), content={"anyOf": [STRING, array(_USER_BLOCKS)]}
            ),
            object_schema(
                "role",
                "content",
                role=enum_schema("assistant"),
                content={"anyOf": [STRING, array(_ASSISTANT_BLOCKS)]},
            ),
            object_schema(
                "role", "content", role=enum_schema("system"), content={"anyOf": [STRING, array(_TEXT_BLOCK)]}
            ),
        )
    )

    role: Literal["user", "assistant", "system"]
    content: str | list[MessagesBlock]


class MessagesTool(Schema):
    """A tool that the model may call and the client runs."""

    type: Annotated[str | None, WithJsonSchema({"enum": [None, "custom"]})] = None
    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class MessagesToolChoice(Schema):
    """Whether the model must call a tool."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema("type", type=enum_schema("auto", "any", "none")),
            object_schema("type", "name", type=enum_schema("tool"), name=NON_EMPTY_STRING),
        )
    )

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesThinking(Schema):
    """Whether the model thinks first; `budget_tokens` is ignored."""

    type: str
    budget_tokens: Annotated[int, INTEGER] | None = None
    display: str | None = None


class MessagesFormat(Schema):
    """The JSON schema of the response."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, populate_by_name=True)

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class MessagesOutput(Schema):
    """Options of the response: effort and format."""

    effort: str | None = None
    format: MessagesFormat | None = None


class MessagesPrompt(Schema):
    """POST /v1/messages/count_tokens: the fields that make up the prompt."""

    model: ModelName = None
    messages: list[MessagesMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: str | list[MessagesPart] | None = None
    tools: list[MessagesTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: MessagesToolChoice | None = None
    thinking: MessagesThinking | None = None
    output_config: MessagesOutput | None = None

    @property
    def thinks(self) -> bool:
        """Whether thinking is enabled; as in Anthropic's API, it is off by default."""
        return self.thinking is not None and self.thinking.type != "disabled"

    @property
    def shows_thinking(self) -> bool:
        """Whether the response includes thinking."""
        return self.thinks and self.thinking is not None and self.thinking.display != "omitted"

    @property
    def one_call(self) -> bool:
        """Whether the response may have only one tool call."""
        return self.tool_choice is not None and self.tool_choice.disable_parallel_tool_use is True


class MessagesRequest(MessagesPrompt):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1), INTEGER] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Annotated[int, Field(ge=0), INTEGER] | None = None
    stop_sequences: list[str] | None = Field(None, max_length=MAX_STOPS)
    stream: bool | None = None
    metadata: dict[str, Any] | None = None


def to_chat_request(request: MessagesPrompt) -> ChatRequest:
    """Convert the request to a chat request.

    Raises:
        ApiError: 400 if it uses an unsupported feature; 422 if it contains anything but text.
    """
    body: dict[str, Any] = {
        "messages": _MessagesBuilder(request).messages,
        "tools": [_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools or ())] or None,
        "tool_choice": _tool_choice(request),
        "enable_thinking": request.thinks,
    }
    output = request.output_config
    if output is not None and output.effort is not None and request.thinks:
        body["reasoning_effort"] = output.effort
    if output is not None and output.format is not None:
        schema = output.format.schema_
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    if isinstance(request, MessagesRequest):
        body |= {
            "max_completion_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": request.stop_sequences,
        }
    return parse(ChatRequest, body)


def _tool(tool: MessagesTool, where: str) -> dict[str, Any]:
    if tool.type not in {None, "custom"}:
        raise invalid(
            f"{where}: tools of type '{(tool.type or '')[:60]}' are not supported. Send tools with a name "
            "and an input_schema.",
            where,
        )
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.input_schema or {"type": "object"},
        },
    }


def _tool_choice(request: MessagesPrompt) -> str | dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None:
        return None
    if choice.type == "tool":
        if not choice.name:
            raise invalid("tool_choice: type 'tool' requires a name.", "tool_choice.name")
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type


class _MessagesBuilder:
    """Builds chat messages: merges consecutive turns of a role, and makes tool results messages."""

    def __init__(self, request: MessagesPrompt) -> None:
        self.messages: list[dict[str, Any]] = []
        remaining = list(request.messages)
        system = [_join_parts(_without_billing(request.system), "system")]
        while remaining and remaining[0].role == "system":
            system.append(_message_text(remaining.pop(0), "messages"))
        text = "\n\n".join(part for part in system if part)
        if text:
            self.messages.append({"role": "system", "content": text})
        skipped = len(request.messages) - len(remaining)
        for number, message in enumerate(remaining, skipped):
            where = f"messages[{number}]"
            if message.role == "system":
                self.messages.append({"role": "system", "content": _message_text(message, where)})
            elif message.role == "user":
                self._add_user(message.content, where)
            else:
                self._add_assistant(message.content, where)
        if not remaining or self.messages[-1]["role"] == "assistant":
            raise invalid(
                "messages: the last message must have the role 'user'; prefilled responses are not "
                "supported.",
                "messages",
            )

    def _add_user(self, content: str | Sequence[MessagesBlock], where: str) -> None:
        if isinstance(content, str) or not content:
            self._add_user_text(content if isinstance(content, str) else "")
            return
        for number, block in enumerate(content):
            at = f"{where}.content[{number}]"
            if block.type == "tool_result":
                self._add_tool_result(block, at)
            else:
                self._add_user_text(_block_text(block, at))

    def _add_user_text(self, text: str) -> None:
        last = self.messages[-1] if self.messages else None
        if last is not None and last["role"] == "user":
            last["content"] += f"\n\n{text}"
        else:
            self.messages.append({"role": "user", "content": text})

    def _add_tool_result(self, block: MessagesBlock, where: str) -> None:
        if not block.tool_use_id:
            raise invalid(f"{where}: a tool_result requires a tool_use_id.", f"{where}.tool_use_id")
        text = _join_parts(block.content, f"{where}.content")
        self.messages.append(
            {
                "role": "tool",
                "tool_call_id": block.tool_use_id,
                "content": f"Error: {text}" if block.is_error else text,
            }
        )

    def _add_assistant(self, content: str | Sequence[MessagesBlock], where: str) -> None:
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant":
            last = {"role": "assistant", "content": "", "reasoning_content": "", "tool_calls": []}
            self.messages.append(last)
        if isinstance(content, str):
            last["content"] += content
            return
        for number, block in enumerate(content):
            at = f"{where}.content[{number}]"
            if block.type == "thinking":
                last["reasoning_content"] += block.thinking or ""
            elif block.type == "tool_use":
                if not block.name:
                    raise invalid(f"{at}: a tool_use requires a name.", f"{at}.name")
                arguments = json.dumps(block.input or {})
                function = {"name": block.name, "arguments": arguments}
                last["tool_calls"].append({"id": block.id, "type": "function", "function": function})
            elif block.type != "redacted_thinking":  # encrypted by Anthropic
                last["content"] += _block_text(block, at)


def _without_billing(system: str | Sequence[MessagesPart] | None) -> str | Sequence[MessagesPart] | None:
    """Remove the billing text that Claude Code 2.1 puts at the start of the system prompt.

    It contains a number that changes with each request, so the prompt cache would never match.
    """
    if system is None or isinstance(system, str):
        return system
    return [part for part in system if not (part.text or "").startswith(_BILLING_PREFIX)]


def _message_text(message: MessagesMessage, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n\n".join(_block_text(block, where) for block in message.content)


def _join_parts(content: str | Sequence[MessagesPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n\n".join(_block_text(part, f"{where}[{number}]") for number, part in enumerate(content))


def _block_text(part: MessagesBlock | MessagesPart, where: str) -> str:
    """Return the text of a content block.

    Raises:
        ApiError: 422 if it is not text; 400 if a text block has no `text`.
    """
    if part.type == "text":
        if part.text is None:
            raise invalid(f"{where}: a block of type 'text' requires text.", f"{where}.text")
        return part.text
    source = part.source
    if part.type == "document" and source is not None and source.type == "text" and source.data is not None:
        return source.data
    raise _unsupported_block(part.type, where)


def _unsupported_block(kind: str, where: str) -> ApiError:
    return invalid(
        f"{where}: content of type '{kind[:40]}' is not supported, only text is. Remove it.",
        where,
        status=422,
    )
