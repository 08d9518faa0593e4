"""POST /v1/responses: OpenAI's Responses API. Nothing is stored."""

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
from mlxk_tui.server.blocks import Begun, Block, BlockKind, Blocks, More, Step, collect_blocks
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import ApiError
from mlxk_tui.server.generation import GenerationPlan
from mlxk_tui.server.openai.chat import logprobs_json
from mlxk_tui.server.openai.responses_request import ResponsesRequest, chat_request_of, echo_of
from mlxk_tui.server.openai.responses_tools import Toolbox
from mlxk_tui.server.requests.conversation import generation_of
from mlxk_tui.server.streaming import stream
from mlxk_tui.server.work import count_prompt

_CUSTOM, _CUSTOM_PREFIX = {"custom_tool_call"}, "ctc"
_PREFIXES = {BlockKind.REASONING: "rs", BlockKind.TEXT: "msg", BlockKind.CALL: "fc"}


async def create(call: Call) -> web.StreamResponse:
    """Answer a conversation."""
    asked = await call.body(ResponsesRequest)
    chat = chat_request_of(asked)
    generation = generation_of(chat, call.service.options.max_tokens)
    model = await call.service.chooser.choose(asked.model)
    wanted = GenerationPlan(model, (generation,))
    blocks = Blocks(
        forced=generation.tools if generation.forced_call else None,
        one_call=asked.parallel_tool_calls is False,
    )
    head = {
        "id": f"resp_{call.entry.id}",
        "object": "response",
        "created_at": call.created,
        "model": model.name,
        **echo_of(asked),
    }
    shown = _Response(head, blocks, asked.toolbox, summary=asked.wants_summary)
    if asked.stream:
        return await stream(call, wanted, _Writer(shown))
    async with call.service.generator.generate(wanted, call.entry) as answers:
        await collect_blocks(answers, blocks)
    return call.json(shown.whole(answers.usage))


async def count_tokens(call: Call) -> web.StreamResponse:
    """Count the tokens of a conversation as the model reads it, its tools included."""
    asked = await call.body(ResponsesRequest)
    generation = generation_of(chat_request_of(asked), call.service.options.max_tokens)
    model = await call.service.chooser.choose(asked.model)
    tokens = await count_prompt(call, model, generation)
    return call.json({"object": "response.input_tokens", "input_tokens": tokens})


def usage_json(usage: TokenUsage) -> dict[str, Any]:
    """Return counted tokens as this API writes them."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


class _Response:
    """The object that a response is, at any time of its life.

    Args:
        head: fields that never change.
        blocks: the answer so far.
        toolbox: the tools of the request.
        summary: tell reasoning as a summary.
    """

    def __init__(self, head: dict[str, Any], blocks: Blocks, toolbox: Toolbox, *, summary: bool) -> None:
        self.blocks = blocks
        self._toolbox = toolbox
        self.summary = summary
        self._head = head
        self._id = secrets.token_hex(12)

    def snapshot(self, status: str, **more: Any) -> dict[str, Any]:
        """Return it with what has come so far."""
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

    def whole(self, usage: TokenUsage) -> dict[str, Any]:
        """Return it at its end."""
        cut = self.blocks.reason is FinishReason.LENGTH
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
        """Return the status of a block that has ended: the last one of an answer may be cut off."""
        cut = self.blocks.finished is not None and self.blocks.reason is FinishReason.LENGTH
        last = block is self.blocks.blocks[-1] and (block.call is None or block.call.cut)
        return "incomplete" if cut and last else "completed"

    def item_id(self, block: Block) -> str:
        """Return the id of a block."""
        prefix = _PREFIXES[block.kind]
        if block.call is not None and self._toolbox.call_json(block.call, begun=True)["type"] in _CUSTOM:
            prefix = _CUSTOM_PREFIX
        return f"{prefix}_{self._id}{block.index:02x}"

    def item(self, block: Block, status: str) -> dict[str, Any]:
        """Return a block as an item of the output; one that is in progress is empty."""
        item: dict[str, Any] = {"id": self.item_id(block)}
        begun = status == "in_progress"
        if block.call is not None:
            return {**item, **self._toolbox.call_json(block.call, begun=begun), "status": status}
        parts = [] if begun else [self.part(block)]
        if block.kind is BlockKind.TEXT:
            return {**item, "type": "message", "role": "assistant", "status": status, "content": parts}
        if self.summary:
            return {**item, "type": "reasoning", "status": status, "summary": parts}
        return {**item, "type": "reasoning", "status": status, "summary": [], "content": parts}

    def part(self, block: Block, *, begun: bool = False) -> dict[str, Any]:
        """Return the one part that an item of text has."""
        text = "" if begun else block.text
        if block.kind is BlockKind.REASONING:
            return {"type": "summary_text" if self.summary else "reasoning_text", "text": text}
        logprobs = [] if begun else logprobs_json(block.logprobs)["content"]
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


class _Writer:
    """Events of one answer, each with its number."""

    def __init__(self, response: _Response) -> None:
        self._response = response
        self._blocks = response.blocks
        self._number = 0
        self._begun = False

    def started(self, index: int, event: Started) -> bytes:
        """Open the response."""
        del index, event
        self._begun = True
        response = self._response.snapshot("in_progress")
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def delta(self, index: int, event: Delta) -> bytes:
        """Return more of the items."""
        del index
        return self._written(self._blocks.push(event))

    def finished(self, index: int, event: Finished) -> bytes:
        """Close the last item."""
        del index
        return self._written(self._blocks.finish(event))

    def end(self, usage: TokenUsage) -> bytes:
        """Return the whole response."""
        response = self._response.whole(usage)
        return self._event(f"response.{response['status']}", response=response)

    def failed(self, error: ApiError) -> bytes:
        """Return the response as it is, with the error."""
        opening = b"" if self._begun else self._event("response.created", response=self._snapshot())
        told = {"code": _code(error), "message": error.in_words, "type": error.type, "param": error.param}
        response = self._response.snapshot("failed", error=told)
        return opening + self._event("response.failed", response=response)

    def _snapshot(self) -> dict[str, Any]:
        return self._response.snapshot("in_progress")

    def _written(self, steps: Iterable[Step]) -> bytes:
        return b"".join(map(self._step, steps))

    def _step(self, step: Step) -> bytes:
        block = step.block
        if isinstance(step, More):
            return self._more(step)
        return self._open(block) if isinstance(step, Begun) else self._close(block)

    def _open(self, block: Block) -> bytes:
        item = self._response.item(block, "in_progress")
        data = self._event("response.output_item.added", output_index=block.index, item=item)
        if block.call is not None:
            whole = self._response.item(block, "completed")
            if whole["type"] in _CUSTOM:
                data += self._of(block, "response.custom_tool_call_input.delta", delta=whole["input"])
                return data + self._of(block, "response.custom_tool_call_input.done", input=whole["input"])
            arguments = whole["arguments"]
            data += self._of(block, "response.function_call_arguments.delta", delta=arguments)
            return data + self._of(
                block, "response.function_call_arguments.done", name=whole["name"], arguments=arguments
            )
        kind, place = self._part_event(block)
        return data + self._of(block, f"{kind}.added", **place, part=self._response.part(block, begun=True))

    def _more(self, step: More) -> bytes:
        block = step.block
        _, place = self._part_event(block)
        (name, at), number = next(iter(place.items())), self._next()
        kind = self._text_event(block)
        logprobs = ""
        if block.kind is BlockKind.TEXT:
            told = logprobs_json(step.logprobs)["content"] if step.logprobs else []
            logprobs = f',"logprobs":{json.dumps(told)}'
        # Written by hand, since most events are these.
        return (
            f'event: {kind}.delta\ndata: {{"type":"{kind}.delta","sequence_number":{number},'
            f'"item_id":"{self._response.item_id(block)}","output_index":{block.index},"{name}":{at},'
            f'"delta":{quoted(step.text)}{logprobs}}}\n\n'
        ).encode("ascii")

    def _close(self, block: Block) -> bytes:
        data = b""
        if block.call is None:
            kind, place = self._part_event(block)
            part = self._response.part(block)
            more = {"logprobs": part["logprobs"]} if block.kind is BlockKind.TEXT else {}
            data = self._of(block, f"{self._text_event(block)}.done", **place, text=block.text, **more)
            data += self._of(block, f"{kind}.done", **place, part=part)
        item = self._response.item(block, self._response.final_status(block))
        return data + self._event("response.output_item.done", output_index=block.index, item=item)

    def _part_event(self, block: Block) -> tuple[str, dict[str, int]]:
        """Return the name of the events around a part, and where the part is in its item."""
        if block.kind is BlockKind.REASONING and self._response.summary:
            return "response.reasoning_summary_part", {"summary_index": 0}
        return "response.content_part", {"content_index": 0}

    def _text_event(self, block: Block) -> str:
        if block.kind is BlockKind.TEXT:
            return "response.output_text"
        return "response.reasoning_summary_text" if self._response.summary else "response.reasoning_text"

    def _of(self, block: Block, kind: str, **more: Any) -> bytes:
        return self._event(kind, item_id=self._response.item_id(block), output_index=block.index, **more)

    def _event(self, kind: str, **more: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._next(), **more}
        return f"event: {kind}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")

    def _next(self) -> int:
        number = self._number
        self._number += 1
        return number


def _code(error: ApiError) -> str:
    """Return the word of this API for why a response failed."""
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
        "Answer a conversation (Responses API)",
        schema=ResponsesRequest,
        streams=True,
        answer=("id", "object", "created_at", "model", "status", "output", "usage"),
    ),
    Route(
        "POST",
        "/v1/responses/input_tokens",
        count_tokens,
        "Count the tokens of a conversation (Responses API)",
        schema=ResponsesRequest,
        answer=("object", "input_tokens"),
    ),
)
