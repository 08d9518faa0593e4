"""The routes POST /v1/responses and /v1/responses/input_tokens. Responses are not stored.

Reference: https://platform.openai.com/docs/api-reference/responses.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from aiohttp import web

from mlxk_tui.engine.generation import Delta, Finished, FinishReason, Started, TokenUsage
from mlxk_tui.ops.core.errors import ErrorType
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
from mlxk_tui.server.openai.chat import logprobs_json
from mlxk_tui.server.openai.responses_request import ResponsesRequest, echoed_fields, to_chat_request
from mlxk_tui.server.openai.responses_tools import Toolbox
from mlxk_tui.server.requests.conversation import to_generation
from mlxk_tui.server.streaming import stream

_CUSTOM, _CUSTOM_PREFIX = "custom_tool_call", "ctc"
_PREFIXES = {BlockKind.REASONING: "rs", BlockKind.TEXT: "msg", BlockKind.CALL: "fc"}


async def create(call: Call) -> web.StreamResponse:
    """Handle POST /v1/responses: generate one response, as a stream if `stream` is true."""
    request = await call.body(ResponsesRequest)
    chat = to_chat_request(request)
    generation = to_generation(chat, call.service.options.max_tokens)
    model = await call.service.resolver.resolve(request.model)
    plan = GenerationPlan(model, (generation,))
    blocks = BlockBuilder(
        forced=generation.tools if generation.forced_call else None,
        one_call=request.parallel_tool_calls is False,
    )
    head = {
        "id": f"resp_{call.entry.id}",
        "object": "response",
        "created_at": call.created,
        "model": model.name,
        **echoed_fields(request),
    }
    response = _ResponseBuilder(head, blocks, request.toolbox, summary=request.wants_summary)
    if request.stream:
        return await stream(call, plan, _ResponsesWriter(response))
    async with call.service.generator.generate(plan, call.entry) as events:
        await collect_blocks(events, blocks)
    return call.json(response.final(events.usage))


async def count_tokens(call: Call) -> web.StreamResponse:
    """Handle POST /v1/responses/input_tokens: count the prompt's tokens, chat template and tools included."""
    request = await call.body(ResponsesRequest)
    generation = to_generation(to_chat_request(request), call.service.options.max_tokens)
    model = await call.service.resolver.resolve(request.model)
    tokens = await count_prompt(call, model, generation)
    return call.json({"object": "response.input_tokens", "input_tokens": tokens})


def usage_json(usage: TokenUsage) -> dict[str, Any]:
    """Return the `usage` object of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class _ResponseBuilder:
    """Builds the response object, complete or in progress.

    Args:
        head: the fields that don't change.
        blocks: the blocks so far.
        toolbox: the tools of the request.
        summary: whether to return reasoning as a summary.
    """

    def __init__(
        self, head: dict[str, Any], blocks: BlockBuilder, toolbox: Toolbox, *, summary: bool
    ) -> None:
        self.blocks = blocks
        self._toolbox = toolbox
        self.summary = summary
        self._head = head
        self._id = secrets.token_hex(12)

    def snapshot(self, status: str, **more: Any) -> dict[str, Any]:
        """Return the response with the blocks so far."""
        return {
            **self._head,
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "output": [self.item(block, "completed") for block in self.blocks.blocks],
            "usage": None,
            **more,
        }

    def final(self, usage: TokenUsage) -> dict[str, Any]:
        """Return the finished response: `completed`, or `incomplete` if it reached `max_output_tokens`."""
        cut = self.blocks.finish_reason is FinishReason.LENGTH
        more: dict[str, Any] = {"usage": usage_json(usage)}
        if cut:
            more["incomplete_details"] = {"reason": "max_output_tokens"}
            if self.blocks.blocks:
                last = self.item(self.blocks.blocks[-1], self.final_status(self.blocks.blocks[-1]))
                done = [self.item(block, "completed") for block in self.blocks.blocks[:-1]]
                more["output"] = [*done, last]
        else:
            more["completed_at"] = int(time.time())
        return self.snapshot("incomplete" if cut else "completed", **more)

    def final_status(self, block: Block) -> str:
        """Return the status of a finished block: `incomplete` if it is the last one and truncated."""
        cut = self.blocks.finished is not None and self.blocks.finish_reason is FinishReason.LENGTH
        last = block is self.blocks.blocks[-1] and (block.call is None or block.call.truncated)
        return "incomplete" if cut and last else "completed"

    def item_id(self, block: Block) -> str:
        """Return the id of a block's output item."""
        prefix = _PREFIXES[block.kind]
        if block.call is not None and self._toolbox.call_json(block.call, empty=True)["type"] == _CUSTOM:
            prefix = _CUSTOM_PREFIX
        return f"{prefix}_{self._id}{block.index:02x}"

    def item(self, block: Block, status: str) -> dict[str, Any]:
        """Return a block as an output item; its content is empty if the status is `in_progress`."""
        item: dict[str, Any] = {"id": self.item_id(block)}
        empty = status == "in_progress"
        if block.call is not None:
            return {**item, **self._toolbox.call_json(block.call, empty=empty), "status": status}
        parts = [] if empty else [self.part(block)]
        if block.kind is BlockKind.TEXT:
            return {**item, "type": "message", "role": "assistant", "status": status, "content": parts}
        if self.summary:
            return {**item, "type": "reasoning", "status": status, "summary": parts}
        return {**item, "type": "reasoning", "status": status, "summary": [], "content": parts}

    def part(self, block: Block, *, empty: bool = False) -> dict[str, Any]:
        """Return the content part of a text or reasoning block."""
        text = "" if empty else block.text
        if block.kind is BlockKind.REASONING:
            return {"type": "summary_text" if self.summary else "reasoning_text", "text": text}
        logprobs = [] if empty else logprobs_json(block.logprobs)["content"]
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


class _ResponsesWriter:
    """Encodes the events of one response, with sequence numbers.

    See https://platform.openai.com/docs/api-reference/responses-streaming.
    """

    def __init__(self, response: _ResponseBuilder) -> None:
        self._response = response
        self._blocks = response.blocks
        self._number = 0
        self._created = False

    def started(self, index: int, event: Started) -> bytes:
        """Return `response.created` and `response.in_progress`."""
        del index, event
        self._created = True
        response = self._response.snapshot("in_progress")
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def delta(self, index: int, event: Delta) -> bytes:
        """Return the events of output items."""
        del index
        return self._encode_all(self._blocks.push(event))

    def finished(self, index: int, event: Finished) -> bytes:
        """Return the end of the last output item."""
        del index
        return self._encode_all(self._blocks.finish(event))

    def end(self, usage: TokenUsage) -> bytes:
        """Return `response.completed` or `response.incomplete`."""
        response = self._response.final(usage)
        return self._event(f"response.{response['status']}", response=response)

    def failed(self, error: ApiError) -> bytes:
        """Return `response.failed`, with the output so far and the error."""
        created = b""
        if not self._created:
            created = self._event("response.created", response=self._response.snapshot("in_progress"))
        error_json = {
            "code": _error_code(error),
            "message": error.openai_message,
            "type": error.type,
            "param": error.param,
        }
        response = self._response.snapshot("failed", error=error_json)
        return created + self._event("response.failed", response=response)

    def _encode_all(self, events: Iterable[BlockEvent]) -> bytes:
        return b"".join(map(self._encode, events))

    def _encode(self, event: BlockEvent) -> bytes:
        if isinstance(event, BlockDelta):
            return self._encode_delta(event)
        if isinstance(event, BlockStarted):
            return self._encode_start(event.block)
        return self._encode_end(event.block)

    def _encode_start(self, block: Block) -> bytes:
        item = self._response.item(block, "in_progress")
        data = self._event("response.output_item.added", output_index=block.index, item=item)
        if block.call is not None:
            complete = self._response.item(block, "completed")
            if complete["type"] == _CUSTOM:
                text = complete["input"]
                data += self._item_event(block, "response.custom_tool_call_input.delta", delta=text)
                return data + self._item_event(block, "response.custom_tool_call_input.done", input=text)
            arguments = complete["arguments"]
            data += self._item_event(block, "response.function_call_arguments.delta", delta=arguments)
            return data + self._item_event(
                block, "response.function_call_arguments.done", name=complete["name"], arguments=arguments
            )
        kind, position = self._part_event(block)
        part = self._response.part(block, empty=True)
        return data + self._item_event(block, f"{kind}.added", **position, part=part)

    def _encode_delta(self, event: BlockDelta) -> bytes:
        block = event.block
        _, position = self._part_event(block)
        (name, at), number = next(iter(position.items())), self._next_number()
        kind = self._text_event(block)
        logprobs = ""
        if block.kind is BlockKind.TEXT:
            content = logprobs_json(event.logprobs)["content"] if event.logprobs else []
            logprobs = f',"logprobs":{json.dumps(content)}'
        # Formatted without `json` for speed, as most events are deltas.
        return (
            f'event: {kind}.delta\ndata: {{"type":"{kind}.delta","sequence_number":{number},'
            f'"item_id":"{self._response.item_id(block)}","output_index":{block.index},"{name}":{at},'
            f'"delta":{quoted(event.text)}{logprobs}}}\n\n'
        ).encode("ascii")

    def _encode_end(self, block: Block) -> bytes:
        data = b""
        if block.call is None:
            kind, position = self._part_event(block)
            part = self._response.part(block)
            more = {"logprobs": part["logprobs"]} if block.kind is BlockKind.TEXT else {}
            text_event = f"{self._text_event(block)}.done"
            data = self._item_event(block, text_event, **position, text=block.text, **more)
            data += self._item_event(block, f"{kind}.done", **position, part=part)
        item = self._response.item(block, self._response.final_status(block))
        return data + self._event("response.output_item.done", output_index=block.index, item=item)

    def _part_event(self, block: Block) -> tuple[str, dict[str, int]]:
        """Return the prefix of a part's events, and the index of the part in its item."""
        if block.kind is BlockKind.REASONING and self._response.summary:
            return "response.reasoning_summary_part", {"summary_index": 0}
        return "response.content_part", {"content_index": 0}

    def _text_event(self, block: Block) -> str:
        if block.kind is BlockKind.TEXT:
            return "response.output_text"
        return "response.reasoning_summary_text" if self._response.summary else "response.reasoning_text"

    def _item_event(self, block: Block, kind: str, **more: Any) -> bytes:
        return self._event(kind, item_id=self._response.item_id(block), output_index=block.index, **more)

    def _event(self, kind: str, **more: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._next_number(), **more}
        return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")

    def _next_number(self) -> int:
        number = self._number
        self._number += 1
        return number


def _error_code(error: ApiError) -> str:
    """Return the `code` of a failed response."""
    if error.type == ErrorType.CONTEXT_LENGTH_EXCEEDED.value:
        return error.type
    if error.status == 429:
        return "rate_limit_exceeded"
    return "server_error" if error.status >= 500 else "invalid_prompt"


ROUTES = (
    Route(
        "POST",
        "/v1/responses",
        create,
        "Create a response (Responses API)",
        schema=ResponsesRequest,
        streams=True,
        response_fields=("id", "object", "created_at", "model", "status", "output", "usage"),
    ),
    Route(
        "POST",
        "/v1/responses/input_tokens",
        count_tokens,
        "Count the input tokens of a response (Responses API)",
        schema=ResponsesRequest,
        response_fields=("object", "input_tokens"),
    ),
)
