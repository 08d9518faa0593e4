"""Converts chat requests to generations of the engine: messages, tools, sampling, grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlxk_tui.engine.formats.tool_calls import forced_call_grammar
from mlxk_tui.engine.generation import RESERVED_VARIABLES, GenerationRequest, GrammarSyntax, SamplingParams
from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.chat_request import (
    MAX_STOPS,
    ChatMessage,
    ChatRequest,
    ContentPart,
    ResponseFormat,
    SamplingRequest,
    ToolCallMessage,
)
from mlxk_tui.server.requests.tools import requires_tool_call, select_tools, to_forced_tool, to_function

_TEXT_PARTS = {"text", "input_text", "output_text"}
_MAX_STOP_CHARACTERS = 1000
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Values of `reasoning_effort` that chat templates don't know, and the ones used for them."""
_ROLES = {"developer": "system", "function": "tool"}


def to_generation(request: ChatRequest, max_tokens: int | None) -> GenerationRequest:
    """Convert a chat request to the generation of one choice.

    Args:
        request: the request.
        max_tokens: the default of the server's options; None for half of the model's context.

    Raises:
        ApiError: 400 if a field is invalid; 422 if a message contains anything but text.
    """
    if request.top_logprobs and not request.logprobs:
        raise invalid("top_logprobs: it requires logprobs to be true.", "top_logprobs")
    tools, forced = select_tools(request), requires_tool_call(request)
    grammar: str | None
    syntax: GrammarSyntax = "json_schema"
    if forced:
        grammar, syntax = forced_call_grammar([to_forced_tool(tool) for tool in tools])
    else:
        grammar = to_grammar(request.response_format)
    kwargs = to_template_kwargs(
        request.chat_template_kwargs, request.enable_thinking, request.reasoning_effort
    )
    return GenerationRequest(
        messages=to_messages(request.messages),
        sampling=to_sampling(request),
        max_tokens=request.max_completion_tokens or request.max_tokens or max_tokens,
        budget="server",
        stop=() if forced else stop_strings(request.stop),  # stop strings don't apply to tool calls
        tools=tuple(map(to_function, tools)),
        template_kwargs=kwargs,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        grammar=grammar,
        grammar_syntax=syntax,
        forced_call=forced,
    )


def to_grammar(response_format: ResponseFormat | None) -> str | None:
    """Return the JSON schema that the response must match; None for any text.

    Raises:
        ApiError: 400 if the type is `json_schema` and the schema is missing.
    """
    if response_format is None or response_format.type == "text":
        return None
    if response_format.type == "json_object":
        return "{}"
    schema = response_format.json_schema.schema_ if response_format.json_schema is not None else None
    if schema is None:
        raise invalid("response_format: type 'json_schema' requires json_schema.schema.", "response_format")
    return json.dumps(schema)


def to_messages(messages: Sequence[ChatMessage]) -> tuple[dict[str, Any], ...]:
    """Convert messages to the format of chat templates.

    Raises:
        ApiError: 400 if a message is incomplete; 422 if it contains an image, audio or a file.
    """
    return tuple(_message(message, f"messages[{number}]") for number, message in enumerate(messages))


def _message(message: ChatMessage, where: str) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "role": _ROLES.get(message.role, message.role),
        "content": content_text(message.content, f"{where}.content"),
    }
    reasoning = message.reasoning_content or message.reasoning
    if reasoning:
        plain["reasoning_content"] = reasoning
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        plain["tool_calls"] = [
            _call(call, number, f"{where}.tool_calls[{number}]")
            for number, call in enumerate(message.tool_calls)
        ]
    elif message.function_call is not None:
        plain["tool_calls"] = [_call(ToolCallMessage(function=message.function_call), 0, where)]
    return plain


def _call(call: ToolCallMessage, number: int, where: str) -> dict[str, Any]:
    """Convert an earlier tool call to the format of chat templates; a custom tool has one `input`."""
    if call.function is not None:
        name, raw_arguments = call.function.name, call.function.arguments
        arguments = raw_arguments if isinstance(raw_arguments, str) else json.dumps(raw_arguments)
    elif call.custom is not None:
        name, arguments = call.custom.name, json.dumps({"input": call.custom.input})
    else:
        raise invalid(f"{where}: a tool call requires a function.", f"{where}.function")
    function = {"name": name, "arguments": arguments}
    return {"id": call.id or f"call_{number}", "type": "function", "function": function}


def content_text(content: str | Sequence[ContentPart] | None, where: str) -> str:
    """Return the text of a message's content; the parts are concatenated.

    Raises:
        ApiError: 422 if a part is not text; 400 if a text part has no `text`.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(content):
        if part.type == "refusal":
            texts.append(part.refusal or "")
        elif part.type in _TEXT_PARTS:
            if part.text is None:
                raise invalid(f"{where}[{number}]: a part of type '{part.type}' requires text.", where)
            texts.append(part.text)
        else:
            raise _not_text(part.type, f"{where}[{number}]")
    return "".join(texts)


def _not_text(kind: str, where: str) -> ApiError:
    return invalid(
        f"{where}: content of type '{kind[:40]}' is not supported, only text is. Remove it.",
        where,
        status=422,
    )


def to_sampling(request: SamplingRequest) -> SamplingParams:
    """Return the sampling parameters of a request.

    Raises:
        ApiError: 400 if a key of `logit_bias` is not a token id.
    """
    bias: dict[int, float] = {}
    for token, value in (request.logit_bias or {}).items():
        if not token.isdecimal() or len(token) > 9:
            raise invalid(f"logit_bias: '{token[:40]}' is not a token id.", "logit_bias")
        bias[int(token)] = value
    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=bias,
        seed=request.seed,
    )


def stop_strings(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the stop strings of a request, without empty ones.

    Raises:
        ApiError: 400 if there are too many, or one is too long.
    """
    texts = [stop] if isinstance(stop, str) else list(stop or ())
    if len(texts) > MAX_STOPS:
        raise invalid(f"stop: at most {MAX_STOPS} strings are allowed.", "stop")
    if any(len(text) > _MAX_STOP_CHARACTERS for text in texts):
        raise invalid(f"stop: a string may have at most {_MAX_STOP_CHARACTERS:,} characters.", "stop")
    return tuple(text for text in texts if text)


def to_template_kwargs(
    template_kwargs: Mapping[str, Any] | None, enable_thinking: bool | None, reasoning_effort: str | None
) -> dict[str, Any]:
    """Return additional variables for the chat template.

    Raises:
        ApiError: 400 if a name is invalid or reserved.
    """
    found: dict[str, Any] = {}
    if reasoning_effort is not None:
        found["reasoning_effort"] = _EFFORTS.get(reasoning_effort, reasoning_effort)
        if reasoning_effort in {"none", "minimal"}:
            found["enable_thinking"] = False
    if enable_thinking is not None:
        found["enable_thinking"] = enable_thinking
    for name, value in (template_kwargs or {}).items():
        if not name.isidentifier() or name in RESERVED_VARIABLES or len(name) > 64:
            raise invalid(
                f"chat_template_kwargs: '{name[:64]}' is not allowed as a variable.", "chat_template_kwargs"
            )
        found[name] = value
    return found
