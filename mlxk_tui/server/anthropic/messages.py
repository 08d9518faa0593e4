"""The routes POST /v1/messages and /v1/messages/count_tokens.

Reference: https://docs.anthropic.com/en/api/messages.
"""

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
from mlxk_tui.server.anthropic.requests import MessagesPrompt, MessagesRequest, to_chat_request
from mlxk_tui.server.blocks import (
    Block,
    BlockBuilder,
    BlockDelta,
    BlockEvent,
    BlockKind,
    BlockStarted,
    collect_blocks,
)
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.engine_work import count_prompt
from mlxk_tui.server.errors import ApiError
from mlxk_tui.server.generation import GenerationPlan
from mlxk_tui.server.requests.conversation import to_generation
from mlxk_tui.server.streaming import stream

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Keep-alive event of Anthropic's streams."""
_SIGNATURE = "unsigned"
"""Clients send thinking back only with a signature; this server doesn't check it."""
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
    """Return the body of an error in Anthropic's format; `code` is the `ErrorType` of the JSON contract."""
    kind = _ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    message = error.message
    if error.type == ErrorType.CONTEXT_LENGTH_EXCEEDED.value:
        figures = ""
        if error.overflow is not None:
            figures = f"{error.overflow.counted} > {error.overflow.context_length} maximum. "
        # Clients such as Claude Code search for this text to compact the conversation.
        message = f"prompt is too long: {figures}{message}"
    return {
        "type": "error",
        "error": {"type": kind, "message": message, "param": error.param, "code": error.type},
        "request_id": request_id,
    }


async def create(call: Call) -> web.StreamResponse:
    """Handle POST /v1/messages: generate one message, as a stream if `stream` is true."""
    request = await call.body(MessagesRequest)
    plan, forced = await _make_plan(call, request)
    blocks = BlockBuilder(forced=forced, reasoning=request.shows_thinking, one_call=request.one_call)
    message = {
        "id": f"msg_{call.entry.id}",
        "type": "message",
        "role": "assistant",
        "model": plan.model.name,
    }
    if request.stream:
        return await stream(call, plan, _MessagesWriter(message, blocks, call.entry.id), keep_alive=PING)
    async with call.service.generator.generate(plan, call.entry) as choices:
        await collect_blocks(choices, blocks)
    content = [_block_json(block) for block in blocks.blocks]
    usage = usage_json(choices.usage)
    return call.json({**message, "content": content, **_stop_fields(blocks), "usage": usage})


async def count_tokens(call: Call) -> web.StreamResponse:
    """Handle POST /v1/messages/count_tokens: count the prompt's tokens, chat template and tools included."""
    request = await call.body(MessagesPrompt)
    plan, _ = await _make_plan(call, request)
    return call.json({"input_tokens": await count_prompt(call, plan.model, plan.generations[0])})


async def _make_plan(call: Call, request: MessagesPrompt) -> tuple[GenerationPlan, Tools | None]:
    """Return the plan, and the tools one of which must be called, if any."""
    chat = to_chat_request(request)
    generation = to_generation(chat, call.service.options.max_tokens)
    model = await call.service.resolver.resolve(request.model)
    return GenerationPlan(model, (generation,)), generation.tools if generation.forced_call else None


def usage_json(usage: TokenUsage) -> dict[str, Any]:
    """Return token counts in Anthropic's format: `input_tokens` excludes cached tokens."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _stop_fields(blocks: BlockBuilder) -> dict[str, Any]:
    """Return the fields `stop_reason` and `stop_sequence`."""
    stop = blocks.finished.stop_string if blocks.finished is not None else None
    reason = blocks.finish_reason
    if stop is not None and reason is FinishReason.STOP:
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": _STOP_REASONS[reason], "stop_sequence": None}


def _block_json(block: Block, *, empty: bool = False) -> dict[str, Any]:
    """Return a content block, or an `empty` one for the start of a stream."""
    if block.call is not None:
        arguments = {} if empty else _tool_input(block.call)
        return {"type": "tool_use", "id": _tool_id(block.call), "name": block.call.name, "input": arguments}
    text = "" if empty else block.text
    if block.kind is BlockKind.REASONING:
        return {"type": "thinking", "thinking": text, "signature": "" if empty else _SIGNATURE}
    return {"type": "text", "text": text}


def _tool_input(call: ToolCall) -> Any:
    """Return the arguments as an object; truncated ones are completed like Anthropic's client does."""
    if not call.truncated:
        return json.loads(call.arguments)
    try:
        partial = from_json(call.arguments, allow_partial=True)
    except ValueError:  # empty, or not JSON
        return {}
    return partial if isinstance(partial, dict) else {}


def _tool_id(call: ToolCall) -> str:
    return call.id.replace(".", "_").replace(":", "_")  # Anthropic's clients allow letters, digits, _ and -


def _event(kind: str, **more: Any) -> bytes:
    data = json.dumps({"type": kind, **more}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode("ascii")


class _MessagesWriter:
    """Encodes the events of one response.

    See https://docs.anthropic.com/en/docs/build-with-claude/streaming.
    """

    def __init__(self, message: dict[str, Any], blocks: BlockBuilder, request_id: str) -> None:
        self._message = message
        self._blocks = blocks
        self._request_id = request_id

    def started(self, index: int, event: Started) -> bytes:
        """Return `message_start`, with the token counts of the prompt."""
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
        """Return the events of content blocks."""
        del index
        return self._encode_all(self._blocks.push(event))

    def finished(self, index: int, event: Finished) -> bytes:
        """Return the end of the last content block."""
        del index
        return self._encode_all(self._blocks.finish(event))

    def end(self, usage: TokenUsage) -> bytes:
        """Return `message_delta`, with the stop reason and the usage, and `message_stop`."""
        delta = _event("message_delta", delta=_stop_fields(self._blocks), usage=usage_json(usage))
        return delta + _event("message_stop")

    def failed(self, error: ApiError) -> bytes:
        """Return an `error` event, which ends the stream."""
        data = json.dumps(error_body(error, self._request_id), separators=(",", ":"))
        return f"event: error\ndata: {data}\n\n".encode("ascii")

    def _encode_all(self, events: Iterable[BlockEvent]) -> bytes:
        return b"".join(map(self._encode, events))

    def _encode(self, event: BlockEvent) -> bytes:
        block = event.block
        if isinstance(event, BlockDelta):
            name = "thinking" if block.kind is BlockKind.REASONING else "text"
            return _delta(block.index, f"{name}_delta", name, event.text)
        if isinstance(event, BlockStarted):
            data = _event(
                "content_block_start", index=block.index, content_block=_block_json(block, empty=True)
            )
            if block.call is not None:
                data += _delta(block.index, "input_json_delta", "partial_json", block.call.arguments)
            return data
        data = b""
        if block.kind is BlockKind.REASONING:
            data = _delta(block.index, "signature_delta", "signature", _SIGNATURE)
        return data + _event("content_block_stop", index=block.index)


def _delta(index: int, kind: str, name: str, text: str) -> bytes:
    """Return a `content_block_delta`; formatted without `json` for speed, as most events are deltas."""
    return (
        f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},'
        f'"delta":{{"type":"{kind}","{name}":{quoted(text)}}}}}\n\n'
    ).encode("ascii")


ROUTES = (
    Route(
        "POST",
        "/v1/messages",
        create,
        "Create a message (Anthropic's API)",
        schema=MessagesRequest,
        streams=True,
        response_fields=("id", "type", "role", "model", "content", "stop_reason", "usage"),
        error_body=error_body,
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        count_tokens,
        "Count the tokens of a message (Anthropic's API)",
        schema=MessagesPrompt,
        response_fields=("input_tokens",),
        error_body=error_body,
    ),
)
