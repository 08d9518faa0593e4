"""The requests of Anthropic's Messages API, and what they are as a request of the chat API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.chat_request import MAX_MESSAGES, MAX_STOPS, MAX_TOOLS, ChatRequest
from mlxk_tui.server.requests.schema import ModelName, Schema, parse
from mlxk_tui.server.requests.shapes import NAME, TEXT, WHOLE, array, either, kind, nullable, shape

_BILLING = "x-anthropic-billing-header:"
_TEXTS = (
    shape("type", "text", type=kind("text"), text=TEXT),
    shape(
        "type", "source", type=kind("document"), source=shape("type", "data", type=kind("text"), data=TEXT)
    ),
)
"""Blocks that hold a text."""
_TEXT_BLOCK = {"anyOf": [*_TEXTS]}
_USERS = {
    "anyOf": [
        *_TEXTS,
        shape(
            *("type", "tool_use_id"),
            type=kind("tool_result"),
            tool_use_id=NAME,
            content=nullable(TEXT, array(_TEXT_BLOCK)),
            is_error=nullable({"type": "boolean"}),
        ),
    ]
}
_ASSISTANTS = {
    "anyOf": [
        *_TEXTS,
        shape("type", type=kind("thinking"), thinking=nullable(TEXT)),
        shape("type", type=kind("redacted_thinking")),
        shape(
            *("type", "name"),
            type=kind("tool_use"),
            id=nullable(TEXT),
            name=NAME,
            input=nullable({"type": "object"}),
        ),
    ]
}


class MessagesSource(Schema):
    """Where the content of a document is."""

    type: str
    data: str | None = None


class MessagesPart(Schema):
    """A piece of a tool's result; only text can be read."""

    model_config = ConfigDict(json_schema_extra=either(*_TEXTS))

    type: str
    text: str | None = None
    source: MessagesSource | None = None


class MessagesBlock(Schema):
    """A piece of a message; which fields count follows from its type."""

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
        json_schema_extra=either(
            shape("role", "content", role=kind("user"), content={"anyOf": [TEXT, array(_USERS)]}),
            shape("role", "content", role=kind("assistant"), content={"anyOf": [TEXT, array(_ASSISTANTS)]}),
            shape("role", "content", role=kind("system"), content={"anyOf": [TEXT, array(_TEXT_BLOCK)]}),
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
    """Whether a tool has to be called."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("type", type=kind("auto", "any", "none")),
            shape("type", "name", type=kind("tool"), name=NAME),
        )
    )

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesThinking(Schema):
    """Whether the model reasons first; a budget is not kept."""

    type: str
    budget_tokens: Annotated[int, WHOLE] | None = None
    display: str | None = None


class MessagesFormat(Schema):
    """What the answer must look like."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, populate_by_name=True)

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class MessagesOutput(Schema):
    """More about the answer."""

    effort: str | None = None
    format: MessagesFormat | None = None


class MessagesPrompt(Schema):
    """POST /v1/messages/count_tokens: all that becomes the prompt."""

    model: ModelName = None
    messages: list[MessagesMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: str | list[MessagesPart] | None = None
    tools: list[MessagesTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: MessagesToolChoice | None = None
    thinking: MessagesThinking | None = None
    output_config: MessagesOutput | None = None

    @property
    def thinks(self) -> bool:
        """Whether the client asked for thinking; as in Anthropic's API nobody thinks unasked."""
        return self.thinking is not None and self.thinking.type != "disabled"

    @property
    def shows_thinking(self) -> bool:
        """Whether the client wants to see it."""
        return self.thinks and self.thinking is not None and self.thinking.display != "omitted"

    @property
    def one_call(self) -> bool:
        """Whether an answer may hold a single tool call only."""
        return self.tool_choice is not None and self.tool_choice.disable_parallel_tool_use is True


class MessagesRequest(MessagesPrompt):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1), WHOLE] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Annotated[int, Field(ge=0), WHOLE] | None = None
    stop_sequences: list[str] | None = Field(None, max_length=MAX_STOPS)
    stream: bool | None = None
    metadata: dict[str, Any] | None = None


def chat_request_of(asked: MessagesPrompt) -> ChatRequest:
    """Return the same request as the chat API has it.

    Raises:
        ApiError: 400 what is not done here; 422 an image or another part that is no text.
    """
    body: dict[str, Any] = {
        "messages": _Conversation(asked).messages,
        "tools": [_tool(tool, f"tools[{number}]") for number, tool in enumerate(asked.tools or ())] or None,
        "tool_choice": _tool_choice(asked),
        "enable_thinking": asked.thinks,
    }
    output = asked.output_config
    if output is not None and output.effort is not None and asked.thinks:
        body["reasoning_effort"] = output.effort
    if output is not None and output.format is not None:
        schema = output.format.schema_
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    if isinstance(asked, MessagesRequest):
        body |= {
            "max_completion_tokens": asked.max_tokens,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "top_k": asked.top_k,
            "stop": asked.stop_sequences,
        }
    return parse(ChatRequest, body)


def _tool(tool: MessagesTool, where: str) -> dict[str, Any]:
    if tool.type not in {None, "custom"}:
        raise invalid(
            f"{where}: no tool of type '{(tool.type or '')[:60]}' is run here. Give tools with a name "
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


def _tool_choice(asked: MessagesPrompt) -> str | dict[str, Any] | None:
    choice = asked.tool_choice
    if choice is None:
        return None
    if choice.type == "tool":
        if not choice.name:
            raise invalid("tool_choice: type 'tool' needs a name.", "tool_choice.name")
        return {"type": "function", "function": {"name": choice.name}}
    return "required" if choice.type == "any" else choice.type


class _Conversation:
    """Builds the messages: turns of one side become one, results of tools become messages of their own."""

    def __init__(self, asked: MessagesPrompt) -> None:
        self.messages: list[dict[str, Any]] = []
        given = list(asked.messages)
        system = [_joined(_without_billing(asked.system), "system")]
        while given and given[0].role == "system":
            system.append(_texts(given.pop(0), "messages"))
        text = "\n\n".join(part for part in system if part)
        if text:
            self.messages.append({"role": "system", "content": text})
        skipped = len(asked.messages) - len(given)
        for number, message in enumerate(given, skipped):
            where = f"messages[{number}]"
            if message.role == "system":
                self.messages.append({"role": "system", "content": _texts(message, where)})
            elif message.role == "user":
                self._user(message.content, where)
            else:
                self._assistant(message.content, where)
        if not given or self.messages[-1]["role"] == "assistant":
            raise invalid(
                "messages: the last one must be the user's; an answer that is begun cannot be gone on with.",
                "messages",
            )

    def _user(self, content: str | Sequence[MessagesBlock], where: str) -> None:
        if isinstance(content, str) or not content:
            self._say(content if isinstance(content, str) else "")
            return
        for number, block in enumerate(content):
            at = f"{where}.content[{number}]"
            if block.type == "tool_result":
                self._result(block, at)
            else:
                self._say(_text(block, at))

    def _say(self, text: str) -> None:
        last = self.messages[-1] if self.messages else None
        if last is not None and last["role"] == "user":
            last["content"] += f"\n\n{text}"
        else:
            self.messages.append({"role": "user", "content": text})

    def _result(self, block: MessagesBlock, where: str) -> None:
        if not block.tool_use_id:
            raise invalid(f"{where}: a tool_result needs its tool_use_id.", f"{where}.tool_use_id")
        text = _joined(block.content, f"{where}.content")
        self.messages.append(
            {
                "role": "tool",
                "tool_call_id": block.tool_use_id,
                "content": f"Error: {text}" if block.is_error else text,
            }
        )

    def _assistant(self, content: str | Sequence[MessagesBlock], where: str) -> None:
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
                    raise invalid(f"{at}: a tool_use needs its name.", f"{at}.name")
                arguments = json.dumps(block.input or {})
                function = {"name": block.name, "arguments": arguments}
                last["tool_calls"].append({"id": block.id, "type": "function", "function": function})
            elif block.type != "redacted_thinking":  # nobody else can read that one
                last["content"] += _text(block, at)


def _without_billing(system: str | Sequence[MessagesPart] | None) -> str | Sequence[MessagesPart] | None:
    """Leave out what Claude Code 2.1 tells Anthropic's accounting at the head of the system prompt.

    It holds a number that changes with each request, so that nothing of the prompt could be kept.
    """
    if system is None or isinstance(system, str):
        return system
    return [part for part in system if not (part.text or "").startswith(_BILLING)]


def _texts(message: MessagesMessage, where: str) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n\n".join(_text(block, where) for block in message.content)


def _joined(content: str | Sequence[MessagesPart] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n\n".join(_text(part, f"{where}[{number}]") for number, part in enumerate(content))


def _text(part: MessagesBlock | MessagesPart, where: str) -> str:
    """Return what can be read of a part.

    Raises:
        ApiError: 422: it is no text; 400: a text part without text.
    """
    if part.type == "text":
        if part.text is None:
            raise invalid(f"{where}: a block of type 'text' needs a text.", f"{where}.text")
        return part.text
    source = part.source
    if part.type == "document" and source is not None and source.type == "text" and source.data is not None:
        return source.data
    raise _not_text(part.type, where)


def _not_text(kind: str, where: str) -> ApiError:
    return invalid(
        f"{where}: models here read text only, and this block is of type '{kind[:40]}'. Leave it out.",
        where,
        status=422,
    )
