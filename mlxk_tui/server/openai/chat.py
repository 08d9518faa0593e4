"""POST /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from aiohttp import web

from mlxk_tui.engine.formats.tool_calls import Tools
from mlxk_tui.engine.formats.truncated_calls import forced_call
from mlxk_tui.engine.generation import (
    Delta,
    Finished,
    FinishReason,
    Generation,
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
from mlxk_tui.server.requests.conversation import generation_of
from mlxk_tui.server.requests.tools import chosen_tools, customs_of, input_of
from mlxk_tui.server.streaming import stream

DONE = b"data: [DONE]\n\n"


async def create(call: Call) -> web.StreamResponse:
    """Answer a conversation."""
    asked = await call.body(ChatRequest)
    generation = generation_of(asked, call.service.options.max_tokens)
    model = await call.service.chooser.choose(asked.model)
    n = asked.n or 1
    wanted = GenerationPlan(model, choices_of(generation, n), n)
    forced = generation.tools if generation.forced_call else None
    form = CallForm(
        customs_of(chosen_tools(asked)),
        legacy=asked.functions is not None,
        one=asked.parallel_tool_calls is False,
    )
    name, number = model.name, f"chatcmpl-{call.entry.id}"
    if asked.stream:
        include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return await stream(
            call,
            wanted,
            ChatWriter(number, call.created, name, n, include_usage=include_usage, forced=forced, form=form),
        )
    async with call.service.generator.generate(wanted, call.entry) as answers:
        choices = await collect(answers, n)
    return call.json(
        {
            "id": number,
            "object": "chat.completion",
            "created": call.created,
            "model": name,
            "choices": [
                choice_json(index, choice, forced, form, asked.logprobs is True)
                for index, choice in enumerate(choices)
            ],
            "usage": usage_json(answers.usage),
        }
    )


def choices_of(generation: Generation, n: int) -> tuple[Generation, ...]:
    """Return a generation for each of `n` choices; each draws its own numbers from a seed.

    After the largest seed comes 0.
    """
    seed = generation.sampling.seed
    if seed is None:
        return (generation,) * n
    seeds = (seed + number for number in range(n))
    return tuple(
        replace(generation, sampling=replace(generation.sampling, seed=one - 2**64 if one >= 2**64 else one))
        for one in seeds
    )


@dataclass(frozen=True)
class CallForm:
    """How calls are written in an answer."""

    customs: frozenset[str] = frozenset()
    """Names of the custom tools."""
    legacy: bool = False
    """As `function_call`, for a request with the old `functions`; the first call only."""
    one: bool = False
    """The first call only."""

    def reason(self, reason: str) -> str:
        """Return why an answer ended in the words of this form."""
        return "function_call" if self.legacy and reason == FinishReason.TOOL_CALLS.value else reason


def choice_json(
    index: int, choice: Choice, forced: Tools | None, form: CallForm, with_logprobs: bool
) -> dict[str, Any]:
    """Return one answer as this API writes it."""
    text: str | None = "".join(choice.text)
    reason = choice.finish_reason
    calls: Sequence[ToolCall] = choice.tool_calls
    if forced is not None:
        call = forced_call(text or "", forced, ended=reason != FinishReason.LENGTH.value)
        text, calls = None, (call,) if call is not None else ()
        reason = _reason_of_call(reason)
    if form.one:
        calls = calls[:1]
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    reasoning = "".join(choice.reasoning)
    if reasoning:
        message["reasoning_content"] = message["reasoning"] = reasoning
    if calls and form.legacy:
        message["function_call"] = call_json(calls[0])["function"]
    elif calls:
        message["tool_calls"] = [call_json(call, form.customs) for call in calls]
    message["refusal"] = None
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_json(choice.logprobs) if with_logprobs else None,
        "finish_reason": form.reason(reason),
    }


def call_json(call: ToolCall, customs: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return a tool call as OpenAI's chat API writes it.

    Args:
        call: the call.
        customs: names of the custom tools.
    """
    if call.name in customs:
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": input_of(call)}}
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _reason_of_call(reason: str) -> str:
    """Return why an answer that had to be a call ended."""
    return FinishReason.TOOL_CALLS.value if reason == FinishReason.STOP.value else reason


def usage_json(usage: TokenUsage) -> dict[str, Any]:
    """Return counted tokens as OpenAI writes them."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def logprobs_json(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return log-probabilities as the chat API writes them."""
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
    """Return an error as an event, in the shape that OpenAI's clients raise."""
    return b"data: " + json.dumps(error.body(), separators=(",", ":")).encode("ascii") + b"\n\n"


class ChatWriter:
    """Chunks of one answer. What does not change is written once; a delta costs one quoted text."""

    def __init__(
        self,
        id: str,  # noqa: A002 - OpenAI's own name
        created: int,
        model: str,
        n: int,
        *,
        include_usage: bool,
        forced: Tools | None,
        form: CallForm,
    ) -> None:
        head = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._head = "data: " + json.dumps(head, separators=(",", ":"))[:-1]
        self._usage = ',"usage":null' if include_usage else ""
        self._include_usage = include_usage
        self._opened = [False] * n
        self._calls = [0] * n
        self._tools = forced
        self._form = form
        self._forced: list[list[str]] | None = [[] for _ in range(n)] if forced is not None else None

    def started(self, index: int, event: Started) -> bytes:
        """Say nothing yet."""
        del index, event
        return b""

    def delta(self, index: int, event: Delta) -> bytes:
        """Return one chunk, or nothing where the text is held back."""
        text = event.text
        if self._forced is not None and text:
            self._forced[index].append(text)
            text = ""
        if not (text or event.reasoning or event.tool_calls or event.logprobs):
            return b""
        parts = []
        if event.reasoning:
            said = quoted(event.reasoning)
            parts.append(f'"reasoning_content":{said},"reasoning":{said}')
        if text:
            parts.append(f'"content":{quoted(text)}')
        if event.tool_calls:
            parts += self._tool_calls(index, event.tool_calls)
        logprobs = json.dumps(logprobs_json(event.logprobs)) if event.logprobs else "null"
        return self._chunk(index, parts, logprobs, "null")

    def finished(self, index: int, event: Finished) -> bytes:
        """Return the chunk with the reason."""
        choice = Choice(finished=event)
        reason = choice.finish_reason
        data = b""
        if self._forced is not None and self._tools is not None:
            ended = event.finish_reason is not FinishReason.LENGTH
            call = forced_call("".join(self._forced[index]), self._tools, ended=ended)
            if call is not None:
                data = self._chunk(index, self._tool_calls(index, (call,)), "null", "null")
            reason = _reason_of_call(reason)
        return data + self._chunk(index, [], "null", quoted(self._form.reason(reason)))

    def end(self, usage: TokenUsage) -> bytes:
        """Return the usage, where it is wanted, and the end."""
        if not self._include_usage:
            return DONE
        counted = json.dumps(usage_json(usage), separators=(",", ":"))
        return f'{self._head},"choices":[],"usage":{counted}}}\n\n'.encode("ascii") + DONE

    def failed(self, error: ApiError) -> bytes:
        """Return the error and the end."""
        return error_event(error) + DONE

    def _chunk(self, index: int, parts: list[str], logprobs: str, reason: str) -> bytes:
        if not self._opened[index]:
            self._opened[index] = True
            parts.insert(0, '"role":"assistant"')
            if not any(part.startswith('"content"') for part in parts):
                # OpenAI's way: AI SDK 6 makes a text part of an empty text, and none of null.
                other = self._forced is not None or len(parts) > 1
                parts.insert(1, '"content":null' if other else '"content":""')
        return (
            f'{self._head},"choices":[{{"index":{index},"delta":{{{",".join(parts)}}},'
            f'"logprobs":{logprobs},"finish_reason":{reason}}}]{self._usage}}}\n\n'
        ).encode("ascii")

    def _tool_calls(self, index: int, calls: Sequence[ToolCall]) -> list[str]:
        """Return the part of a delta that tells of calls."""
        before = self._calls[index]
        if self._form.one:
            calls = calls[: 1 - before]
            if not calls:
                return []
        self._calls[index] += len(calls)
        if self._form.legacy:
            shown: Any = call_json(calls[0])["function"]
            return [] if before else [f'"function_call":{json.dumps(shown, separators=(",", ":"))}']
        shown = [
            {"index": number, **call_json(call, self._form.customs)}
            for number, call in enumerate(calls, before)
        ]
        return [f'"tool_calls":{json.dumps(shown, separators=(",", ":"))}']


ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        create,
        "Answer a conversation",
        schema=ChatRequest,
        streams=True,
        answer=("id", "object", "created", "model", "choices", "usage"),
    ),
)
