"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from aiohttp import web
from pydantic_core import from_json

from mlxk_tui.engine.formats.tool_calls import Tools
from mlxk_tui.engine.generation import Delta, Finished, FinishReason, Started, TokenUsage, ToolCall
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.server.anthropic.requests import MessagesPrompt, MessagesRequest, chat_request_of
from mlxk_tui.server.blocks import Begun, Block, BlockKind, Blocks, More, Step, collect_blocks
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import ApiError
from mlxk_tui.server.generation import GenerationPlan
from mlxk_tui.server.requests.conversation import generation_of
from mlxk_tui.server.streaming import stream
from mlxk_tui.server.work import count_prompt

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Sent while nothing else is."""
_SIGNATURE = "unsigned"
"""Clients want thinking to be signed before they send it back; nothing here needs that."""
_STOP_REASONS = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CANCELLED: "end_turn",
}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """Return an error in Anthropic's shape; `code` is the type of the JSON contract."""
    kind = _ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    message = error.message
    if error.type == ErrorType.CONTEXT_LENGTH_EXCEEDED.value:
        figures = ""
        if error.overflow is not None:
            figures = f"{error.overflow.counted} > {error.overflow.context_length} maximum. "
        # The words by which clients know that it is time to compact.
        message = f"prompt is too long: {figures}{message}"
    return {
        "type": "error",
        "error": {"type": kind, "message": message, "param": error.param, "code": error.type},
        "request_id": request_id,
    }


async def create(call: Call) -> web.StreamResponse:
    """Answer a conversation."""
    asked = await call.body(MessagesRequest)
    wanted, forced = await _wanted(call, asked)
    blocks = Blocks(forced=forced, reasoning=asked.shows_thinking, one_call=asked.one_call)
    message = {
        "id": f"msg_{call.entry.id}",
        "type": "message",
        "role": "assistant",
        "model": wanted.model.name,
    }
    if asked.stream:
        return await stream(call, wanted, _Writer(message, blocks, call.entry.id), keep_alive=PING)
    async with call.service.generator.generate(wanted, call.entry) as answers:
        await collect_blocks(answers, blocks)
    content = [_block_json(block) for block in blocks.blocks]
    return call.json({**message, "content": content, **_ending(blocks), "usage": usage_json(answers.usage)})


async def count_tokens(call: Call) -> web.StreamResponse:
    """Count the tokens of a conversation as the model reads it, its tools included."""
    asked = await call.body(MessagesPrompt)
    wanted, _ = await _wanted(call, asked)
    return call.json({"input_tokens": await count_prompt(call, wanted.model, wanted.generations[0])})


async def _wanted(call: Call, asked: MessagesPrompt) -> tuple[GenerationPlan, Tools | None]:
    """Return what to generate, and the tools that it has to be a call of one of."""
    chat = chat_request_of(asked)
    generation = generation_of(chat, call.service.options.max_tokens)
    model = await call.service.chooser.choose(asked.model)
    return GenerationPlan(model, (generation,)), generation.tools if generation.forced_call else None


def usage_json(usage: TokenUsage) -> dict[str, Any]:
    """Return counted tokens as Anthropic writes them: cached ones are not part of the input."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _ending(blocks: Blocks) -> dict[str, Any]:
    """Return why the answer ended."""
    stop = blocks.finished.stop_string if blocks.finished is not None else None
    reason = blocks.reason
    if stop is not None and reason is FinishReason.STOP:
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": _STOP_REASONS[reason], "stop_sequence": None}


def _block_json(block: Block, *, begun: bool = False) -> dict[str, Any]:
    """Return a block; one that has only `begun` is empty, and its content follows."""
    if block.call is not None:
        given = {} if begun else _input_of(block.call)
        return {"type": "tool_use", "id": _tool_id(block.call), "name": block.call.name, "input": given}
    text = "" if begun else block.text
    if block.kind is BlockKind.REASONING:
        return {"type": "thinking", "thinking": text, "signature": "" if begun else _SIGNATURE}
    return {"type": "text", "text": text}


def _input_of(call: ToolCall) -> Any:
    """Return arguments as an object; of cut-off ones what is whole, as Anthropic's client does."""
    if not call.cut:
        return json.loads(call.arguments)
    try:
        begun = from_json(call.arguments, allow_partial=True)
    except ValueError:  # nothing of it, or no JSON
        return {}
    return begun if isinstance(begun, dict) else {}


def _tool_id(call: ToolCall) -> str:
    return call.id.replace(".", "_").replace(":", "_")  # Anthropic's clients allow letters, digits, _ and -


def _event(kind: str, **more: Any) -> bytes:
    data = json.dumps({"type": kind, **more}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode("ascii")


class _Writer:
    """Events of one answer."""

    def __init__(self, message: dict[str, Any], blocks: Blocks, request_id: str) -> None:
        self._message = message
        self._blocks = blocks
        self._request_id = request_id

    def started(self, index: int, event: Started) -> bytes:
        """Open the message."""
        del index
        usage = usage_json(TokenUsage(event.prompt_tokens, event.cached_tokens, 0, 0))
        message = {
            **self._message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event("message_start", message=message)

    def delta(self, index: int, event: Delta) -> bytes:
        """Return more of the blocks."""
        del index
        return self._written(self._blocks.push(event))

    def finished(self, index: int, event: Finished) -> bytes:
        """Close the last block."""
        del index
        return self._written(self._blocks.finish(event))

    def end(self, usage: TokenUsage) -> bytes:
        """Tell why it ended, and the usage."""
        ending = _event("message_delta", delta=_ending(self._blocks), usage=usage_json(usage))
        return ending + _event("message_stop")

    def failed(self, error: ApiError) -> bytes:
        """Return the error."""
        data = json.dumps(error_body(error, self._request_id), separators=(",", ":"))
        return f"event: error\ndata: {data}\n\n".encode("ascii")

    def _written(self, steps: Iterable[Step]) -> bytes:
        return b"".join(map(self._step, steps))

    def _step(self, step: Step) -> bytes:
        block = step.block
        if isinstance(step, More):
            name = "thinking" if block.kind is BlockKind.REASONING else "text"
            return _delta(block.index, f"{name}_delta", name, step.text)
        if isinstance(step, Begun):
            data = _event(
                "content_block_start", index=block.index, content_block=_block_json(block, begun=True)
            )
            if block.call is not None:
                data += _delta(block.index, "input_json_delta", "partial_json", block.call.arguments)
            return data
        data = b""
        if block.kind is BlockKind.REASONING:
            data = _delta(block.index, "signature_delta", "signature", _SIGNATURE)
        return data + _event("content_block_stop", index=block.index)


def _delta(index: int, kind: str, name: str, text: str) -> bytes:
    """Return a piece of a block; written by hand, since most events are these."""
    return (
        f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
        f'"delta":{{"type":"{kind}","{name}":{quoted(text)}}}}}\n\n'
    ).encode("ascii")


ROUTES = (
    Route(
        "POST",
        "/v1/messages",
        create,
        "Answer a conversation (Anthropic's API)",
        schema=MessagesRequest,
        streams=True,
        answer=("id", "type", "role", "model", "content", "stop_reason", "usage"),
        error_body=error_body,
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        count_tokens,
        "Count the tokens of a conversation (Anthropic's API)",
        schema=MessagesPrompt,
        answer=("input_tokens",),
        error_body=error_body,
    ),
)
