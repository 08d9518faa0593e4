"""Schemas of Responses requests, and their conversion to chat requests.

Reference: https://platform.openai.com/docs/api-reference/responses/create.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.openai.responses_tools import CallableTool, ResponsesTool, Toolbox
from mlxk_tui.server.requests.chat_request import MAX_MESSAGES, MAX_TOOLS, ChatRequest, ContentPart
from mlxk_tui.server.requests.conversation import content_text
from mlxk_tui.server.requests.json_schemas import (
    INTEGER,
    NON_EMPTY_STRING,
    STRING,
    any_of,
    array,
    enum_schema,
    not_empty,
    nullable,
    object_schema,
    ref,
    unsupported,
)
from mlxk_tui.server.requests.schema import ModelName, Schema, parse


class ResponsesItem(Schema):
    """An input item: a message, a tool call, the output of a tool, or reasoning."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema(
                "role",
                type=nullable(enum_schema("message")),
                role=enum_schema("user", "assistant", "system", "developer"),
                content=nullable(STRING, array(ref("ContentPart"))),
            ),
            object_schema("type", type=enum_schema("reasoning"), content=nullable(array(ref("ContentPart")))),
            object_schema(
                *("type", "name"),
                type=enum_schema("function_call"),
                name=NON_EMPTY_STRING,
                namespace=nullable(STRING),
                call_id=nullable(STRING),
                arguments=nullable(STRING),
            ),
            object_schema(
                *("type", "name"),
                type=enum_schema("custom_tool_call"),
                name=NON_EMPTY_STRING,
                namespace=nullable(STRING),
                call_id=nullable(STRING),
                input=nullable(STRING),
            ),
            object_schema(
                *("type", "call_id"),
                type=enum_schema("function_call_output", "custom_tool_call_output"),
                call_id=NON_EMPTY_STRING,
                output=nullable(STRING, array(ref("ContentPart"))),
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
    """The tool that the model must call, or the tools that it may call."""

    model_config = ConfigDict(
        json_schema_extra=any_of(
            object_schema(
                "type",
                "name",
                type=enum_schema("function", "custom"),
                name=NON_EMPTY_STRING,
                namespace=nullable(STRING),
            ),
            object_schema(
                "type",
                type=enum_schema("allowed_tools"),
                mode=nullable(enum_schema("auto", "required")),
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
    """The format of the response: text, JSON, or JSON with a schema."""

    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        frozen=True,
        populate_by_name=True,
        json_schema_extra=any_of(
            object_schema("type", type=enum_schema("text", "json_object")),
            object_schema(
                "type",
                "schema",
                type=enum_schema("json_schema"),
                name=nullable(STRING),
                schema={"type": "object"},
            ),
        ),
    )

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponsesText(Schema):
    """Options of the response's text."""

    format: ResponsesFormat | None = None
    verbosity: str | None = None


class ResponsesReasoning(Schema):
    """Options of reasoning: effort and summary."""

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
    max_output_tokens: Annotated[int, Field(ge=1), INTEGER] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_logprobs: Annotated[int, Field(ge=0, le=20), INTEGER] | None = None
    text: ResponsesText | None = None
    reasoning: ResponsesReasoning | None = None
    include: list[str] | None = Field(None, max_length=64)
    metadata: dict[str, str] | None = Field(None, max_length=64)
    stream: bool | None = None
    store: bool | None = None
    background: Annotated[bool | None, unsupported(False)] = None
    previous_response_id: Annotated[str | None, unsupported()] = None
    conversation: Annotated[str | dict[str, Any] | None, unsupported()] = None
    prompt: Annotated[dict[str, Any] | None, unsupported()] = None
    truncation: str | None = None
    user: str | None = None

    @property
    def toolbox(self) -> Toolbox:
        """The tools that the model can call.

        OpenAI's built-in tools (web search, ...) are ignored.

        Raises:
            ApiError: 400 if a tool has no name, or two have the same.
        """
        return Toolbox(self.tools or ())

    @property
    def wants_logprobs(self) -> bool:
        """Whether log-probabilities are requested, by `top_logprobs` or `include`."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())

    @property
    def wants_summary(self) -> bool:
        """Whether a reasoning summary is requested; it contains the full reasoning then."""
        return self.reasoning is not None and self.reasoning.summary is not None


def to_chat_request(request: ResponsesRequest) -> ChatRequest:
    """Convert the request to a chat request.

    Raises:
        ApiError: 400 if it uses an unsupported feature; 422 if it contains anything but text.
    """
    _check_supported(request)
    tools, choice = _select_tools(request, request.toolbox)
    body: dict[str, Any] = {
        "messages": _MessagesBuilder(request).messages,
        "tools": [tool.chat_json for tool in tools] or None,
        "tool_choice": choice,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    if request.wants_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    text_format = request.text.format if request.text is not None else None
    if text_format is not None:
        if text_format.type == "json_schema" and text_format.schema_ is None:
            raise invalid("text.format: type 'json_schema' requires a schema.", "text.format.schema")
        body["response_format"] = {
            "type": text_format.type,
            "json_schema": {"name": text_format.name, "schema": text_format.schema_},
        }
    return parse(ChatRequest, body)


def _check_supported(request: ResponsesRequest) -> None:
    """Reject features that need stored responses.

    Raises:
        ApiError: 400 if the request uses one.
    """
    for name in ("previous_response_id", "conversation", "prompt"):
        if getattr(request, name) is not None:
            raise invalid(f"{name}: responses are not stored. Send the whole conversation as input.", name)
    if request.background:
        raise invalid(
            "background: responses are not stored, so they can't be retrieved later. Stream the response.",
            "background",
        )


def _select_tools(
    request: ResponsesRequest, toolbox: Toolbox
) -> tuple[list[CallableTool], str | dict[str, Any] | None]:
    """Return the tools that are in the prompt, and `tool_choice` as in chat requests."""
    choice = request.tool_choice
    if not isinstance(choice, ResponsesToolChoice):
        return toolbox.tools, choice
    if choice.type == "allowed_tools":
        return _allowed_tools(choice, toolbox), choice.mode or "auto"
    if choice.type not in {"function", "custom"} or not choice.name:
        raise invalid(
            f"tool_choice: tools of type '{choice.type[:40]}' are not supported. "
            "Choose a function or a custom tool.",
            "tool_choice",
        )
    tool = toolbox.find(choice.type, choice.name, choice.namespace)
    if tool is None:
        raise invalid(f"tool_choice: tool '{choice.name[:60]}' is not in tools.", "tool_choice")
    return toolbox.tools, {"type": choice.type, choice.type: {"name": tool.qualified_name}}


def _allowed_tools(choice: ResponsesToolChoice, toolbox: Toolbox) -> list[CallableTool]:
    """Return the allowed tools; a namespace allows all of its tools."""
    allowed: list[CallableTool] = []
    for entry in choice.tools or ():
        kind, name, namespace = entry.get("type"), entry.get("name"), entry.get("namespace")
        if kind == "namespace":
            allowed += [tool for tool in toolbox.tools if tool.namespace == name]
        elif isinstance(kind, str) and isinstance(name, str):
            tool = toolbox.find(kind, name, namespace if isinstance(namespace, str) else None)
            if tool is not None:
                allowed.append(tool)
    return [tool for tool in toolbox.tools if tool in allowed]


class _MessagesBuilder:
    """Builds chat messages; consecutive text, reasoning and tool calls of the model become one message."""

    def __init__(self, request: ResponsesRequest) -> None:
        self.messages: list[dict[str, Any]] = []
        self._reasoning = ""
        system = [request.instructions or ""]
        value = request.input
        items = [ResponsesItem(role="user", content=value)] if isinstance(value, str) else value
        if not items:
            raise invalid("input: it is empty. Send a text, or a list of items.", "input")
        if len(items) > MAX_MESSAGES:
            raise invalid(f"input: at most {MAX_MESSAGES:,} items are allowed. Send fewer.", "input")
        first = 0
        while (
            first < len(items) and items[first].role in {"system", "developer"} and _is_message(items[first])
        ):
            system.append(content_text(items[first].content, f"input[{first}].content"))
            first += 1
        text = "\n\n".join(part for part in system if part)
        if text:
            self.messages.append({"role": "system", "content": text})
        for number in range(first, len(items)):
            self._add(items[number], f"input[{number}]")

    def _add(self, item: ResponsesItem, where: str) -> None:
        if _is_message(item):
            if item.role is None:
                raise invalid(f"{where}: a message requires a role.", f"{where}.role")
            text = content_text(item.content, f"{where}.content")
            if item.role == "assistant":
                self._assistant()["content"] += text
            else:
                self._reasoning = ""
                self.messages.append({"role": item.role, "content": text})
        elif item.type == "reasoning":
            self._reasoning += _reasoning_text(item)
        elif item.type in {"function_call", "custom_tool_call"}:
            if not item.name:
                raise invalid(f"{where}: a {item.type} requires a name.", f"{where}.name")
            arguments = item.arguments or ""
            if item.type == "custom_tool_call":
                arguments = json.dumps({"input": item.input or ""}, ensure_ascii=False)
            function = {"name": Toolbox.qualify(item.namespace, item.name), "arguments": arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            self._assistant().setdefault("tool_calls", []).append(call)
        elif item.type in {"function_call_output", "custom_tool_call_output"}:
            if not item.call_id:
                raise invalid(f"{where}: a {item.type} requires a call_id.", f"{where}.call_id")
            output = content_text(item.output, f"{where}.output")
            self.messages.append({"role": "tool", "tool_call_id": item.call_id, "content": output})
        else:
            raise _unsupported_item(item, where)

    def _assistant(self) -> dict[str, Any]:
        """Return the assistant message to append to, with the reasoning before it."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": ""})
        message = self.messages[-1]
        if self._reasoning:
            message["reasoning_content"] = message.get("reasoning_content", "") + self._reasoning
            self._reasoning = ""
        return message


def _is_message(item: ResponsesItem) -> bool:
    return item.type == "message" or (item.type is None and item.role is not None)


def _reasoning_text(item: ResponsesItem) -> str:
    """Return the text of a reasoning item; empty if it is encrypted, as by OpenAI's models."""
    if isinstance(item.content, str):
        return item.content
    parts = item.content or item.summary or ()
    return "".join(part.text or "" for part in parts)


def _unsupported_item(item: ResponsesItem, where: str) -> ApiError:
    if item.type == "item_reference":
        return invalid(f"{where}: responses are not stored. Send the item itself.", where)
    kind = (item.type or "")[:60]
    return invalid(f"{where}: items of type '{kind}' are not supported. Remove it.", f"{where}.type")


def echoed_fields(request: ResponsesRequest) -> dict[str, Any]:
    """Return the fields of a response that repeat the request, with the values that are in effect."""
    choice = request.tool_choice
    if isinstance(choice, ResponsesToolChoice):
        choice_json: Any = choice.model_dump(exclude_none=True)
    else:
        choice_json = choice or "auto"
    text_format: dict[str, Any] = {"type": "text"}
    if request.text is not None and request.text.format is not None:
        text_format = request.text.format.model_dump(by_alias=True, exclude_none=True)
    reasoning = request.reasoning
    return {
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata or {},
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {
            "effort": reasoning.effort if reasoning is not None else None,
            "summary": reasoning.summary if reasoning is not None else None,
        },
        "service_tier": "default",
        "store": False,
        "temperature": request.temperature,
        "text": {"format": text_format},
        "tool_choice": choice_json,
        "tools": request.toolbox.echoed,
        "top_logprobs": request.top_logprobs or 0,
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": request.user,
    }
