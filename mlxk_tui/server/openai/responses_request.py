"""The requests of OpenAI's Responses API, and what they are as a request of the chat API."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.openai.responses_tools import OfferedTool, ResponsesTool, Toolbox
from mlxk_tui.server.requests.chat_request import MAX_MESSAGES, MAX_TOOLS, ChatRequest, ContentPart
from mlxk_tui.server.requests.conversation import text_of
from mlxk_tui.server.requests.schema import ModelName, Schema, parse
from mlxk_tui.server.requests.shapes import (
    NAME,
    TEXT,
    WHOLE,
    array,
    either,
    kind,
    not_empty,
    nullable,
    ref,
    refused,
    shape,
)


class ResponsesItem(Schema):
    """An item of the input: a message, what the model called, what came out of it, or its reasoning."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape(
                "role",
                type=nullable(kind("message")),
                role=kind("user", "assistant", "system", "developer"),
                content=nullable(TEXT, array(ref("ContentPart"))),
            ),
            shape("type", type=kind("reasoning"), content=nullable(array(ref("ContentPart")))),
            shape(
                *("type", "name"),
                type=kind("function_call"),
                name=NAME,
                namespace=nullable(TEXT),
                call_id=nullable(TEXT),
                arguments=nullable(TEXT),
            ),
            shape(
                *("type", "name"),
                type=kind("custom_tool_call"),
                name=NAME,
                namespace=nullable(TEXT),
                call_id=nullable(TEXT),
                input=nullable(TEXT),
            ),
            shape(
                *("type", "call_id"),
                type=kind("function_call_output", "custom_tool_call_output"),
                call_id=NAME,
                output=nullable(TEXT, array(ref("ContentPart"))),
            ),
        )
    )

    type: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[ContentPart] | None = None
    summary: list[ContentPart] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[ContentPart] | None = None


class ResponsesToolChoice(Schema):
    """The one tool that has to be called, or those that may be."""

    model_config = ConfigDict(
        json_schema_extra=either(
            shape("type", "name", type=kind("function", "custom"), name=NAME, namespace=nullable(TEXT)),
            shape(
                "type",
                type=kind("allowed_tools"),
                mode=nullable(kind("auto", "required")),
                tools=nullable({**array({"type": "object"}), "maxItems": MAX_TOOLS}),
            ),
        )
    )

    type: str
    name: str | None = None
    namespace: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=MAX_TOOLS)


class ResponsesFormat(Schema):
    """What the answer must look like."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        frozen=True,
        populate_by_name=True,
        json_schema_extra=either(
            shape("type", type=kind("text", "json_object")),
            shape("type", "schema", type=kind("json_schema"), name=nullable(TEXT), schema={"type": "object"}),
        ),
    )

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponsesText(Schema):
    """More about the text of the answer."""

    format: ResponsesFormat | None = None
    verbosity: str | None = None


class ResponsesReasoning(Schema):
    """How much the model reasons, and how that is shown."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(Schema):
    """POST /v1/responses."""

    model: ModelName = None
    input: str | list[ResponsesItem] = Field(json_schema_extra=not_empty)
    instructions: str | None = None
    tools: list[ResponsesTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ResponsesToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1), WHOLE] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    text: ResponsesText | None = None
    reasoning: ResponsesReasoning | None = None
    include: list[str] | None = Field(None, max_length=64)
    metadata: dict[str, str] | None = Field(None, max_length=64)
    stream: bool | None = None
    store: bool | None = None
    background: Annotated[bool | None, refused(False)] = None
    previous_response_id: Annotated[str | None, refused()] = None
    conversation: Annotated[str | dict[str, Any] | None, refused()] = None
    prompt: Annotated[dict[str, Any] | None, refused()] = None
    truncation: str | None = None
    user: str | None = None

    @property
    def toolbox(self) -> Toolbox:
        """The tools that a model here can call.

        Those that OpenAI runs itself (web search, ...) are left out, as where they are not at hand.

        Raises:
            ApiError: 400: a tool has no name of its own.
        """
        return Toolbox(self.tools or ())

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are asked for."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())

    @property
    def wants_summary(self) -> bool:
        """Whether reasoning is to be told as a summary; there it is the reasoning itself."""
        return self.reasoning is not None and self.reasoning.summary is not None


def chat_request_of(asked: ResponsesRequest) -> ChatRequest:
    """Return the same request as the chat API has it.

    Raises:
        ApiError: 400 what is not done here; 422 an image or another part that is no text.
    """
    _refuse(asked)
    tools, choice = _choice(asked, asked.toolbox)
    body: dict[str, Any] = {
        "messages": _Conversation(asked).messages,
        "tools": [tool.chat_json for tool in tools] or None,
        "tool_choice": choice,
        "max_completion_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
    }
    if asked.wants_logprobs:
        body |= {"logprobs": True, "top_logprobs": asked.top_logprobs}
    if asked.reasoning is not None and asked.reasoning.effort is not None:
        body["reasoning_effort"] = asked.reasoning.effort
    wanted = asked.text.format if asked.text is not None else None
    if wanted is not None:
        if wanted.type == "json_schema" and wanted.schema_ is None:
            raise invalid("text.format: type 'json_schema' needs a schema.", "text.format.schema")
        body["response_format"] = {
            "type": wanted.type,
            "json_schema": {"name": wanted.name, "schema": wanted.schema_},
        }
    return parse(ChatRequest, body)


def _refuse(asked: ResponsesRequest) -> None:
    """Refuse what would need answers to be kept: nothing is stored here.

    Raises:
        ApiError: 400.
    """
    for name in ("previous_response_id", "conversation", "prompt"):
        if getattr(asked, name) is not None:
            raise invalid(f"{name}: nothing is stored here. Send the whole conversation as input.", name)
    if asked.background:
        raise invalid(
            "background: nothing is stored here, so an answer cannot be fetched later. Stream it.",
            "background",
        )


def _choice(
    asked: ResponsesRequest, toolbox: Toolbox
) -> tuple[list[OfferedTool], str | dict[str, Any] | None]:
    """Return the tools that the model hears of, and the choice of one as the chat API has it."""
    choice = asked.tool_choice
    if not isinstance(choice, ResponsesToolChoice):
        return toolbox.offered, choice
    if choice.type == "allowed_tools":
        return _allowed(choice, toolbox), choice.mode or "auto"
    if choice.type not in {"function", "custom"} or not choice.name:
        raise invalid(
            f"tool_choice: tools of type '{choice.type[:40]}' are not there for the models here. "
            "Name a function or a custom tool.",
            "tool_choice",
        )
    tool = toolbox.find(choice.type, choice.name, choice.namespace)
    if tool is None:
        raise invalid(f"tool_choice: there is no tool '{choice.name[:60]}' in tools.", "tool_choice")
    return toolbox.offered, {"type": choice.type, choice.type: {"name": tool.heard}}


def _allowed(choice: ResponsesToolChoice, toolbox: Toolbox) -> list[OfferedTool]:
    """Return the tools that may be called this time; a namespace stands for all of its tools."""
    allowed: list[OfferedTool] = []
    for entry in choice.tools or ():
        kind, name, namespace = entry.get("type"), entry.get("name"), entry.get("namespace")
        if kind == "namespace":
            allowed += [tool for tool in toolbox.offered if tool.namespace == name]
        elif isinstance(kind, str) and isinstance(name, str):
            tool = toolbox.find(kind, name, namespace if isinstance(namespace, str) else None)
            if tool is not None:
                allowed.append(tool)
    return [tool for tool in toolbox.offered if tool in allowed]


class _Conversation:
    """Builds the messages: what the model said, reasoned and called in a row is one message."""

    def __init__(self, asked: ResponsesRequest) -> None:
        self.messages: list[dict[str, Any]] = []
        self._reasoning = ""
        system = [asked.instructions or ""]
        given = asked.input
        items = [ResponsesItem(role="user", content=given)] if isinstance(given, str) else given
        if not items:
            raise invalid("input: it is empty. Give a text, or a list of items.", "input")
        if len(items) > MAX_MESSAGES:
            raise invalid(f"input: at most {MAX_MESSAGES:,} items are read.", "input")
        first = 0
        while (
            first < len(items) and items[first].role in {"system", "developer"} and _is_message(items[first])
        ):
            system.append(text_of(items[first].content, f"input[{first}].content"))
            first += 1
        text = "\n\n".join(part for part in system if part)
        if text:
            self.messages.append({"role": "system", "content": text})
        for number in range(first, len(items)):
            self._add(items[number], f"input[{number}]")

    def _add(self, item: ResponsesItem, where: str) -> None:
        if _is_message(item):
            if item.role is None:
                raise invalid(f"{where}: a message needs its role.", f"{where}.role")
            text = text_of(item.content, f"{where}.content")
            if item.role == "assistant":
                self._assistant()["content"] += text
            else:
                self._reasoning = ""
                self.messages.append({"role": item.role, "content": text})
        elif item.type == "reasoning":
            self._reasoning += _reasoning_of(item)
        elif item.type in {"function_call", "custom_tool_call"}:
            if not item.name:
                raise invalid(f"{where}: a {item.type} needs its name.", f"{where}.name")
            arguments = item.arguments or ""
            if item.type == "custom_tool_call":
                arguments = json.dumps({"input": item.input or ""}, ensure_ascii=False)
            function = {"name": Toolbox.heard(item.namespace, item.name), "arguments": arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            self._assistant().setdefault("tool_calls", []).append(call)
        elif item.type in {"function_call_output", "custom_tool_call_output"}:
            if not item.call_id:
                raise invalid(f"{where}: a {item.type} needs its call_id.", f"{where}.call_id")
            output = text_of(item.output, f"{where}.output")
            self.messages.append({"role": "tool", "tool_call_id": item.call_id, "content": output})
        else:
            raise _unknown(item, where)

    def _assistant(self) -> dict[str, Any]:
        """Return the message of the model's turn, with the reasoning that came before."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        message = self.messages[-1]
        if self._reasoning:
            message["reasoning_content"] = message.get("reasoning_content", "") + self._reasoning
            self._reasoning = ""
        return message


def _is_message(item: ResponsesItem) -> bool:
    return item.type == "message" or (item.type is None and item.role is not None)


def _reasoning_of(item: ResponsesItem) -> str:
    """Return the text of reasoning; that of others may be encrypted, and is left out then."""
    if isinstance(item.content, str):
        return item.content
    parts = item.content or item.summary or ()
    return "".join(part.text or "" for part in parts)


def _unknown(item: ResponsesItem, where: str) -> ApiError:
    if item.type == "item_reference":
        return invalid(f"{where}: nothing is stored here. Send the item itself.", where)
    kind = (item.type or "")[:60]
    return invalid(f"{where}: items of type '{kind}' are not read here. Leave it out.", f"{where}.type")


def echo_of(asked: ResponsesRequest) -> dict[str, Any]:
    """Return the fields of a response that repeat the request, with what is really done."""
    choice = asked.tool_choice
    if isinstance(choice, ResponsesToolChoice):
        choice_json: Any = choice.model_dump(exclude_none=True)
    else:
        choice_json = choice or "auto"
    shape = asked.text.format if asked.text is not None else None
    shape_json = shape.model_dump(by_alias=True, exclude_none=True) if shape is not None else {"type": "text"}
    reasoning = asked.reasoning
    return {
        "background": False,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": None,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {
            "effort": reasoning.effort if reasoning is not None else None,
            "summary": reasoning.summary if reasoning is not None else None,
        },
        "service_tier": "default",
        "store": False,
        "temperature": asked.temperature,
        "text": {"format": shape_json},
        "tool_choice": choice_json,
        "tools": asked.toolbox.shown,
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": "disabled",
        "user": asked.user,
    }
