"""From a chat request, its messages, tools and sampling, to what the engine takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlxk_tui.engine.formats.tool_calls import forced_call_grammar
from mlxk_tui.engine.generation import RESERVED_VARIABLES, Generation, GrammarSyntax, Sampling
from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.requests.chat_request import (
    MAX_STOPS,
    ChatMessage,
    ChatRequest,
    ContentPart,
    ResponseFormat,
    Sampled,
    ToolCallMessage,
)
from mlxk_tui.server.requests.tools import chosen_tools, forced_tool_of, forces_tool, function_of

_TEXT_PARTS = {"text", "input_text", "output_text"}
_MAX_STOP_CHARACTERS = 1000
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Efforts that chat templates do not know, to those that they do."""
_ROLES = {"developer": "system", "function": "tool"}


def generation_of(asked: ChatRequest, max_tokens: int | None) -> Generation:
    """Return what the engine has to do for one choice.

    Args:
        asked: the request.
        max_tokens: most tokens where the request does not say.

    Raises:
        ApiError: a field cannot be used.
    """
    if asked.top_logprobs and not asked.logprobs:
        raise invalid("top_logprobs: it needs logprobs to be true.", "top_logprobs")
    tools, forced = chosen_tools(asked), forces_tool(asked)
    grammar: str | None
    syntax: GrammarSyntax = "json_schema"
    if forced:
        grammar, syntax = forced_call_grammar([forced_tool_of(tool) for tool in tools])
    else:
        grammar = grammar_of(asked.response_format)
    kwargs = template_kwargs_of(asked.chat_template_kwargs, asked.enable_thinking, asked.reasoning_effort)
    return Generation(
        messages=messages_of(asked.messages),
        sampling=sampling_of(asked),
        max_tokens=asked.max_completion_tokens or asked.max_tokens or max_tokens,
        budget="server",
        stop=() if forced else stops_of(asked.stop),  # as in other calls: a call is no text
        tools=tuple(map(function_of, tools)),
        template_kwargs=kwargs,
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        grammar=grammar,
        grammar_syntax=syntax,
        forced_call=forced,
    )


def grammar_of(wanted: ResponseFormat | None) -> str | None:
    """Return the JSON schema that the answer must follow.

    Raises:
        ApiError: 400: `json_schema` without a schema.
    """
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return "{}"
    schema = wanted.json_schema.schema_ if wanted.json_schema is not None else None
    if schema is None:
        raise invalid("response_format: type 'json_schema' needs json_schema.schema.", "response_format")
    return json.dumps(schema)


def messages_of(messages: Sequence[ChatMessage]) -> tuple[dict[str, Any], ...]:
    """Return a conversation for the engine.

    Raises:
        ApiError: 422: a message holds an image, sound or a file.
    """
    return tuple(_message(message, f"messages[{number}]") for number, message in enumerate(messages))


def _message(message: ChatMessage, where: str) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "role": _ROLES.get(message.role, message.role),
        "content": text_of(message.content, f"{where}.content"),
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
    """Return an earlier call as chat templates want it; one of a custom tool has one text."""
    if call.function is not None:
        name, given = call.function.name, call.function.arguments
        arguments = given if isinstance(given, str) else json.dumps(given)
    elif call.custom is not None:
        name, arguments = call.custom.name, json.dumps({"input": call.custom.input})
    else:
        raise invalid(f"{where}: a call needs its function.", f"{where}.function")
    function = {"name": name, "arguments": arguments}
    return {"id": call.id or f"call_{number}", "type": "function", "function": function}


def text_of(content: str | Sequence[ContentPart] | None, where: str) -> str:
    """Return the text of a message's content, its parts joined.

    Raises:
        ApiError: 422: a part is no text; 400: a text part without text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for number, part in enumerate(content):
        if part.type == "refusal":
            texts.append(part.refusal or "")
        elif part.type in _TEXT_PARTS:
            if part.text is None:
                raise invalid(f"{where}[{number}]: a part of type '{part.type}' needs a text.", where)
            texts.append(part.text)
        else:
            raise _not_text(part.type, f"{where}[{number}]")
    return "".join(texts)


def _not_text(kind: str, where: str) -> ApiError:
    return invalid(
        f"{where}: models here read text only, and this part is of type '{kind[:40]}'. Leave it out.",
        where,
        status=422,
    )


def sampling_of(request: Sampled) -> Sampling:
    """Return how tokens are drawn.

    Raises:
        ApiError: 400: a key of logit_bias is no token id.
    """
    bias: dict[int, float] = {}
    for token, value in (request.logit_bias or {}).items():
        if not token.isdecimal() or len(token) > 9:
            raise invalid(f"logit_bias: '{token[:40]}' is no token id.", "logit_bias")
        bias[int(token)] = value
    return Sampling(
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


def stops_of(stop: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the texts that end an answer; empty ones end none.

    Raises:
        ApiError: 400: too many, or too long.
    """
    texts = [stop] if isinstance(stop, str) else list(stop or ())
    if len(texts) > MAX_STOPS:
        raise invalid(f"stop: at most {MAX_STOPS} texts can end an answer.", "stop")
    if any(len(text) > _MAX_STOP_CHARACTERS for text in texts):
        raise invalid(f"stop: a text has at most {_MAX_STOP_CHARACTERS} characters.", "stop")
    return tuple(text for text in texts if text)


def template_kwargs_of(
    given: Mapping[str, Any] | None, enable_thinking: bool | None, reasoning_effort: str | None
) -> dict[str, Any]:
    """Return more variables for the chat template.

    Raises:
        ApiError: 400: a name that is not the template's.
    """
    found: dict[str, Any] = {}
    if reasoning_effort is not None:
        found["reasoning_effort"] = _EFFORTS.get(reasoning_effort, reasoning_effort)
        if reasoning_effort in {"none", "minimal"}:
            found["enable_thinking"] = False
    if enable_thinking is not None:
        found["enable_thinking"] = enable_thinking
    for name, value in (given or {}).items():
        if not name.isidentifier() or name in RESERVED_VARIABLES or len(name) > 64:
            raise invalid(
                f"chat_template_kwargs: '{name[:64]}' is no variable of a template.", "chat_template_kwargs"
            )
        found[name] = value
    return found
