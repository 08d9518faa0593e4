"""From messages, tools and sampling as OpenAI writes them to what the engine takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlxk_tui.engine.generation import RESERVED_VARIABLES, Sampling
from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.openai.schemas import MAX_STOPS, ChatMessage, ContentPart, Sampled, ToolCallMessage

_TEXT_PARTS = {"text", "input_text", "output_text"}
_MAX_STOP_CHARACTERS = 1000
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Efforts that chat templates do not know, to those that they do."""
_ROLES = {"developer": "system", "function": "tool"}


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
