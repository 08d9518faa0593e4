"""The route POST /v1/chat/completions.

Reference: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from aiohttp import web

from mlxk_tui.engine.formats.tool_calls import Tools
from mlxk_tui.engine.formats.truncated_calls import parse_forced_call
from mlxk_tui.engine.generation import (
    Delta,
    Finished,
    FinishReason,
    GenerationRequest,
    Started,
    TokenLogprob,
    TokenUsage,
    ToolCall,
    TopToken,
)
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import ApiError
from mlxk_tui.server.generation import Choice, GenerationPlan, collect
from mlxk_tui.server.requests.chat_request import ChatRequest
from mlxk_tui.server.requests.conversation import to_generation
from mlxk_tui.server.requests.tools import custom_input, custom_tool_names, select_tools
from mlxk_tui.server.streaming import stream

DONE = b"data: [DONE]\n\n"


async def create(call: Call) -> web.StreamResponse:
    """Handle POST /v1/chat/completions: generate `n` choices, as a stream if `stream` is true."""
    request = await call.body(ChatRequest)
    generation = to_generation(request, call.service.options.max_tokens)
    model = await call.service.resolver.resolve(request.model)
    n = request.n or 1
    plan = GenerationPlan(model, repeat_for_choices(generation, n), n)
    forced = generation.tools if generation.forced_call else None
    call_format = ToolCallFormat(
        custom_tool_names(select_tools(request)),
        legacy=request.functions is not None,
        first_only=request.parallel_tool_calls is False,
    )
    name, completion_id = model.name, f"chatcmpl-{call.entry.id}"
    if request.stream:
        include_usage = bool(request.stream_options and request.stream_options.include_usage)
        return await stream(
            call,
            plan,
            ChatWriter(
                completion_id,
                call.created,
                name,
                n,
                include_usage=include_usage,
                forced=forced,
                call_format=call_format,
            ),
        )
    async with call.service.generator.generate(plan, call.entry) as events:
        choices = await collect(events, n)
    return call.json(
        {
            "id": completion_id,
            "object": "chat.completion",
            "created": call.created,
            "model": name,
            "choices": [
                choice_json(index, choice, forced, call_format, request.logprobs is True)
                for index, choice in enumerate(choices)
            ],
            "usage": usage_json(events.usage),
        }
    )


def repeat_for_choices(generation: GenerationRequest, n: int) -> tuple[GenerationRequest, ...]:
    """Return `n` generations; if a seed is given, each gets the next one.

    Seeds wrap around at 2**64.
    """
    seed = generation.sampling.seed
    if seed is None:
        return (generation,) * n
    seeds = (seed + number for number in range(n))
    return tuple(
        replace(
            generation, sampling=replace(generation.sampling, seed=value - 2**64 if value >= 2**64 else value)
        )
        for value in seeds
    )


@dataclass(frozen=True)
class ToolCallFormat:
    """How tool calls are encoded in a response."""

    custom_names: frozenset[str] = frozenset()
    """Names of the custom tools."""
    legacy: bool = False
    """Whether to encode the first call as `function_call`, for requests with deprecated `functions`."""
    first_only: bool = False
    """Whether to drop all calls but the first."""

    def finish_reason(self, reason: str) -> str:
        """Return the `finish_reason` in this format."""
        return "function_call" if self.legacy and reason == FinishReason.TOOL_CALLS.value else reason


def choice_json(
    index: int, choice: Choice, forced: Tools | None, call_format: ToolCallFormat, with_logprobs: bool
) -> dict[str, Any]:
    """Return one element of `choices`."""
    text: str | None = "".join(choice.text)
    reason = choice.finish_reason
    calls: Sequence[ToolCall] = choice.tool_calls
    if forced is not None:
        call = parse_forced_call(text or "", forced, ended=reason != FinishReason.LENGTH.value)
        text, calls = None, (call,) if call is not None else ()
        reason = _forced_call_reason(reason)
    if call_format.first_only:
        calls = calls[:1]
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    reasoning = "".join(choice.reasoning)
    if reasoning:
        message["reasoning_content"] = message["reasoning"] = reasoning
    if calls and call_format.legacy:
        message["function_call"] = call_json(calls[0])["function"]
    elif calls:
        message["tool_calls"] = [call_json(call, call_format.custom_names) for call in calls]
    message["refusal"] = None
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_json(choice.logprobs) if with_logprobs else None,
        "finish_reason": call_format.finish_reason(reason),
    }


def call_json(call: ToolCall, custom_names: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return an element of `tool_calls`.

    Args:
        call: the call.
        custom_names: names of the custom tools.
    """
    if call.name in custom_names:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": custom_input(call)}}
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _forced_call_reason(reason: str) -> str:
    """Return the `finish_reason` of a forced call."""
    return FinishReason.TOOL_CALLS.value if reason == FinishReason.STOP.value else reason


def usage_json(usage: TokenUsage) -> dict[str, Any]:
    """Return the `usage` object of completions."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def logprobs_json(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` object of a choice."""
    return {
        "content": [
            {
                **_token(entry),
                "top_logprobs": [_token(top) for top in entry.top],
            }
            for entry in logprobs
        ],
        "refusal": None,
    }


def _token(entry: TokenLogprob | TopToken) -> dict[str, Any]:
    data = list(entry.raw or entry.text.encode("utf-8", "replace"))
    return {"token": entry.text, "logprob": entry.logprob, "bytes": data}


def error_event(error: ApiError) -> bytes:
    """Return an error as an event; OpenAI's clients raise it."""
    return b"data: " + json.dumps(error.body(), separators=(",", ":")).encode("ascii") + b"\n\n"


class ChatWriter:
    """Encodes the chunks of one response.

    The constant part of a chunk is encoded once; a delta only needs to quote its text.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - the name in OpenAI's API
        created: int,
        model: str,
        n: int,
        *,
        include_usage: bool,
        forced: Tools | None,
        call_format: ToolCallFormat,
    ) -> None:
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = "data: " + json.dumps(head, separators=(",", ":"))[:-1]
        self._usage = ',"usage":null' if include_usage else ""
        self._include_usage = include_usage
        self._started = [False] * n
        self._call_counts = [0] * n
        self._tools = forced
        self._call_format = call_format
        self._forced: list[list[str]] | None = [[] for _ in range(n)] if forced is not None else None

    def started(self, index: int, event: Started) -> bytes:
        """Return nothing: the first chunk is sent with the first delta."""
        del index, event
        return b""

    def delta(self, index: int, event: Delta) -> bytes:
        """Return a chunk, or nothing if the text is part of a forced call."""
        text = event.text
        if self._forced is not None and text:
            self._forced[index].append(text)
            text = ""
        if not (text or event.reasoning or event.tool_calls or event.logprobs):
            return b""
        parts = []
        if event.reasoning:
            reasoning = quoted(event.reasoning)
            parts.append(f'"reasoning_content":{reasoning},"reasoning":{reasoning}')
        if text:
            parts.append(f'"content":{quoted(text)}')
        if event.tool_calls:
            parts += self._tool_calls(index, event.tool_calls)
        logprobs = json.dumps(logprobs_json(event.logprobs)) if event.logprobs else "null"
        return self._chunk(index, parts, logprobs, "null")

    def finished(self, index: int, event: Finished) -> bytes:
        """Return the chunk with the `finish_reason`."""
        choice = Choice(finished=event)
        reason = choice.finish_reason
        data = b""
        if self._forced is not None and self._tools is not None:
            ended = event.finish_reason is not FinishReason.LENGTH
            call = parse_forced_call("".join(self._forced[index]), self._tools, ended=ended)
            if call is not None:
                data = self._chunk(index, self._tool_calls(index, (call,)), "null", "null")
            reason = _forced_call_reason(reason)
        return data + self._chunk(index, [], "null", quoted(self._call_format.finish_reason(reason)))

    def end(self, usage: TokenUsage) -> bytes:
        """Return the usage, if requested, and `[DONE]`."""
        if not self._include_usage:
            return DONE
        counted = json.dumps(usage_json(usage), separators=(",", ":"))
        return f'{self._head},"choices":[],"usage":{counted}}}\n\n'.encode("ascii") + DONE

    def failed(self, error: ApiError) -> bytes:
        """Return the error and `[DONE]`."""
        return error_event(error) + DONE

    def _chunk(self, index: int, parts: list[str], logprobs: str, reason: str) -> bytes:
        if not self._started[index]:
            self._started[index] = True
            parts.insert(0, '"role":"assistant"')
            if not any(part.startswith('"content"') for part in parts):
                # As in OpenAI's API. AI SDK 6 creates a text part for "", but not for null.
                other = self._forced is not None or len(parts) > 1
                parts.insert(1, '"content":null' if other else '"content":""')
        return (
            f'{self._head},"choices":[{{"index":{index},"delta":{{{",".join(parts)}}},'
            f'"logprobs":{logprobs},"finish_reason":{reason}}}]{self._usage}}}\n\n'
        ).encode("ascii")

    def _tool_calls(self, index: int, calls: Sequence[ToolCall]) -> list[str]:
        """Return the fields of a delta with tool calls."""
        before = self._call_counts[index]
        if self._call_format.first_only:
            calls = calls[: 1 - before]
            if not calls:
                return []
        self._call_counts[index] += len(calls)
        if self._call_format.legacy:
            encoded: Any = call_json(calls[0])["function"]
            return [] if before else [f'"function_call":{json.dumps(encoded, separators=(",", ":"))}']
        encoded = [
            {"index": number, **call_json(call, self._call_format.custom_names)}
            for number, call in enumerate(calls, before)
        ]
        return [f'"tool_calls":{json.dumps(encoded, separators=(",", ":"))}']


ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        create,
        "Create a chat completion",
        schema=ChatRequest,
        streams=True,
        response_fields=("id", "object", "created", "model", "choices", "usage"),
    ),
)
