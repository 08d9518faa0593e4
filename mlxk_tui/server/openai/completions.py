"""The route POST /v1/completions.

Reference: https://platform.openai.com/docs/api-reference/completions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from aiohttp import web

from mlxk_tui.engine.generation import (
    Delta,
    Finished,
    GenerationRequest,
    Started,
    TokenLogprob,
    TokenUsage,
    TopToken,
)
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.generation import Choice, GenerationPlan, collect
from mlxk_tui.server.openai.chat import DONE, error_event, repeat_for_choices, usage_json
from mlxk_tui.server.openai.completion_request import MAX_PROMPTS, CompletionRequest
from mlxk_tui.server.requests.conversation import stop_strings, to_sampling
from mlxk_tui.server.streaming import stream

Prompt = str | tuple[int, ...]


async def create(call: Call) -> web.StreamResponse:
    """Handle POST /v1/completions: generate `n` choices per prompt, as a stream if `stream` is true."""
    request = await call.body(CompletionRequest)
    prompts = _prompts(request)
    n = request.n or 1
    generations: list[GenerationRequest] = []
    for prompt in prompts:
        generation = _to_generation(request, prompt, call.service.options.max_tokens)
        generations += repeat_for_choices(generation, n)
    model = await call.service.resolver.resolve(request.model)
    plan = GenerationPlan(model, tuple(generations), n)
    name, completion_id = model.name, f"cmpl-{call.entry.id}"
    if request.stream:
        include_usage = bool(request.stream_options and request.stream_options.include_usage)
        writer = _CompletionWriter(completion_id, call.created, name, include_usage=include_usage)
        return await stream(call, plan, writer)
    async with call.service.generator.generate(plan, call.entry) as events:
        choices = await collect(events, len(generations))
    return call.json(
        {
            "id": completion_id,
            "object": "text_completion",
            "created": call.created,
            "model": name,
            "choices": [
                _choice_json(index, choice, request.logprobs is not None)
                for index, choice in enumerate(choices)
            ],
            "usage": usage_json(events.usage),
        }
    )


def _prompts(request: CompletionRequest) -> list[Prompt]:
    """Return the prompts, each a text or token ids.

    Raises:
        ApiError: 400 if the request uses an unsupported feature, or a prompt is empty.
    """
    if request.suffix:
        raise invalid("suffix: insertion is not supported. Remove it.", "suffix")
    if request.max_tokens == 0 and not request.echo:
        raise invalid("max_tokens: 0 is allowed with echo only. Use at least 1, or set echo.", "max_tokens")
    if request.best_of is not None and request.best_of > (request.n or 1):
        raise invalid("best_of: values above n are not supported. Use n instead.", "best_of")
    value = request.prompt
    prompts: list[Prompt]
    if isinstance(value, str):
        prompts = [value]
    elif value and isinstance(value[0], int):
        prompts = [tuple(value)]  # the schema checks a list by the type of its first item
    else:
        prompts = [
            item if isinstance(item, str) else tuple(item) for item in value if not isinstance(item, int)
        ]
    if not prompts:
        raise invalid("prompt: it is empty. Send a text, a list of texts, or token ids.", "prompt")
    if len(prompts) > MAX_PROMPTS:
        raise invalid(f"prompt: at most {MAX_PROMPTS} prompts are allowed. Send fewer.", "prompt")
    if not all(prompts):
        raise invalid("prompt: an empty prompt can't be completed. Remove it.", "prompt")
    return prompts


def _to_generation(request: CompletionRequest, prompt: Prompt, max_tokens: int | None) -> GenerationRequest:
    return GenerationRequest(
        prompt=prompt if isinstance(prompt, str) else None,
        tokens=prompt if isinstance(prompt, tuple) else None,
        sampling=to_sampling(request),
        max_tokens=max_tokens if request.max_tokens is None else request.max_tokens,
        budget="server",
        stop=stop_strings(request.stop),
        logprobs=request.logprobs,
        echo=bool(request.echo),
    )


def _choice_json(index: int, choice: Choice, with_logprobs: bool) -> dict[str, Any]:
    return {
        "index": index,
        "text": "".join(choice.output),
        "logprobs": _logprobs_json(choice.logprobs) if with_logprobs else None,
        "finish_reason": choice.finish_reason,
    }


def _logprobs_json(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the `logprobs` object of a choice; the first token of a prompt has no log-probability."""
    return {
        "tokens": [_token_text(entry) for entry in logprobs],
        "token_logprobs": [entry.logprob for entry in logprobs],
        "top_logprobs": [_top_logprobs(entry) for entry in logprobs],
        "text_offset": [entry.offset for entry in logprobs],
    }


def _top_logprobs(entry: TokenLogprob) -> dict[str, float] | None:
    """Return the most likely tokens and the sampled one; if two have the same text, the likelier one."""
    if entry.logprob is None:
        return None
    top: dict[str, float] = {}
    for token in (*entry.top, TopToken(entry.id, entry.text, entry.logprob, entry.raw)):
        top.setdefault(_token_text(token), token.logprob)
    return top


def _token_text(entry: TokenLogprob | TopToken) -> str:
    """Return a token's text; an incomplete UTF-8 sequence as `bytes:\\x..`, as OpenAI's API does."""
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry.raw) if entry.raw else entry.text


class _CompletionWriter:
    """Encodes the chunks of one response."""

    def __init__(
        self,
        id: str,  # noqa: A002 - the name in OpenAI's API
        created: int,
        model: str,
        *,
        include_usage: bool,
    ) -> None:
        head = {"id": id, "object": "text_completion", "created": created, "model": model}
        self._head = "data: " + json.dumps(head, separators=(",", ":"))[:-1]
        self._usage = ',"usage":null' if include_usage else ""
        self._include_usage = include_usage

    def started(self, index: int, event: Started) -> bytes:
        """Return nothing: the first chunk is sent with the first delta."""
        del index, event
        return b""

    def delta(self, index: int, event: Delta) -> bytes:
        """Return a chunk, or nothing if the delta has no text."""
        text = event.reasoning + event.text
        if not (text or event.logprobs):
            return b""
        logprobs = "null"
        if event.logprobs:
            logprobs = json.dumps(_logprobs_json(event.logprobs))
        return self._chunk(index, text, logprobs, "null")

    def finished(self, index: int, event: Finished) -> bytes:
        """Return the chunk with the `finish_reason`."""
        return self._chunk(index, "", "null", quoted(Choice(finished=event).finish_reason))

    def end(self, usage: TokenUsage) -> bytes:
        """Return the usage, if requested, and `[DONE]`."""
        if not self._include_usage:
            return DONE
        counted = json.dumps(usage_json(usage), separators=(",", ":"))
        return f'{self._head},"choices":[],"usage":{counted}}}\n\n'.encode("ascii") + DONE

    def failed(self, error: ApiError) -> bytes:
        """Return the error and `[DONE]`."""
        return error_event(error) + DONE

    def _chunk(self, index: int, text: str, logprobs: str, reason: str) -> bytes:
        return (
            f'{self._head},"choices":[{{"index":{index},"text":{quoted(text)},'
            f'"logprobs":{logprobs},"finish_reason":{reason}}}]{self._usage}}}\n\n'
        ).encode("ascii")


ROUTES = (
    Route(
        "POST",
        "/v1/completions",
        create,
        "Create a completion",
        schema=CompletionRequest,
        streams=True,
        response_fields=("id", "object", "created", "model", "choices", "usage"),
    ),
)
