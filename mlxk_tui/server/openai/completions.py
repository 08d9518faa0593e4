"""POST /v1/completions: text or tokens to go on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from aiohttp import web

from mlxk_tui.engine.generation import (
    Delta,
    Finished,
    Generation,
    Started,
    TokenLogprob,
    TokenUsage,
    TopToken,
)
from mlxk_tui.server.calls import Call, Route
from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.generation import Choice, GenerationPlan, collect
from mlxk_tui.server.openai.chat import DONE, choices_of, error_event, usage_json
from mlxk_tui.server.openai.completion_request import MAX_PROMPTS, CompletionRequest
from mlxk_tui.server.requests.conversation import sampling_of, stops_of
from mlxk_tui.server.streaming import stream

Prompt = str | tuple[int, ...]


async def create(call: Call) -> web.StreamResponse:
    """Go on with one or several texts."""
    asked = await call.body(CompletionRequest)
    prompts = _prompts(asked)
    n = asked.n or 1
    generations: list[Generation] = []
    for prompt in prompts:
        generations += choices_of(_generation(asked, prompt, call.service.options.max_tokens), n)
    model = await call.service.chooser.choose(asked.model)
    wanted = GenerationPlan(model, tuple(generations), n)
    name, number = model.name, f"cmpl-{call.entry.id}"
    if asked.stream:
        include_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return await stream(call, wanted, _Writer(number, call.created, name, include_usage=include_usage))
    async with call.service.generator.generate(wanted, call.entry) as answers:
        choices = await collect(answers, len(generations))
    return call.json(
        {
            "id": number,
            "object": "text_completion",
            "created": call.created,
            "model": name,
            "choices": [
                _choice(index, choice, asked.logprobs is not None) for index, choice in enumerate(choices)
            ],
            "usage": usage_json(answers.usage),
        }
    )


def _prompts(asked: CompletionRequest) -> list[Prompt]:
    """Return each prompt: a text, or token ids.

    Raises:
        ApiError: 400: something that is not done here, or no prompt.
    """
    if asked.suffix:
        raise invalid("suffix: text cannot be filled in between two others here. Leave it out.", "suffix")
    if asked.max_tokens == 0 and not asked.echo:
        raise invalid(
            "max_tokens: 0 leaves nothing to answer with, unless echo repeats the prompt.", "max_tokens"
        )
    if asked.best_of is not None and asked.best_of > (asked.n or 1):
        raise invalid("best_of: all answers are returned. Use n instead.", "best_of")
    given = asked.prompt
    prompts: list[Prompt]
    if isinstance(given, str):
        prompts = [given]
    elif given and isinstance(given[0], int):
        prompts = [tuple(given)]  # the schema types a list by its first item
    else:
        prompts = [
            item if isinstance(item, str) else tuple(item) for item in given if not isinstance(item, int)
        ]
    if not prompts:
        raise invalid("prompt: it is empty. Give a text, a list of texts, or token ids.", "prompt")
    if len(prompts) > MAX_PROMPTS:
        raise invalid(f"prompt: at most {MAX_PROMPTS} prompts are answered at once.", "prompt")
    if not all(prompts):
        raise invalid("prompt: an empty prompt leaves nothing to go on with.", "prompt")
    return prompts


def _generation(asked: CompletionRequest, prompt: Prompt, max_tokens: int | None) -> Generation:
    return Generation(
        prompt=prompt if isinstance(prompt, str) else None,
        tokens=prompt if isinstance(prompt, tuple) else None,
        sampling=sampling_of(asked),
        max_tokens=max_tokens if asked.max_tokens is None else asked.max_tokens,
        budget="server",
        stop=stops_of(asked.stop),
        logprobs=asked.logprobs,
        echo=bool(asked.echo),
    )


def _choice(index: int, choice: Choice, with_logprobs: bool) -> dict[str, Any]:
    return {
        "index": index,
        "text": "".join(choice.said),
        "logprobs": _logprobs(choice.logprobs) if with_logprobs else None,
        "finish_reason": choice.finish_reason,
    }


def _logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return log-probabilities as this API writes them; of a prompt's first token there are none."""
    return {
        "tokens": [_name(entry) for entry in logprobs],
        "token_logprobs": [entry.logprob for entry in logprobs],
        "top_logprobs": [_top(entry) for entry in logprobs],
        "text_offset": [entry.offset for entry in logprobs],
    }


def _top(entry: TokenLogprob) -> dict[str, float] | None:
    """Return the likeliest tokens and the one that came; of two that are written alike, the likelier."""
    if entry.logprob is None:
        return None
    top: dict[str, float] = {}
    for likely in (*entry.top, TopToken(entry.id, entry.text, entry.logprob, entry.raw)):
        top.setdefault(_name(likely), likely.logprob)
    return top


def _name(entry: TokenLogprob | TopToken) -> str:
    """Return a token's text; a part of a character as OpenAI writes it, so that no two are alike."""
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry.raw) if entry.raw else entry.text


class _Writer:
    """Chunks of one answer."""

    def __init__(
        self,
        id: str,  # noqa: A002 - OpenAI's own name
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
        """Say nothing yet."""
        del index, event
        return b""

    def delta(self, index: int, event: Delta) -> bytes:
        """Return one chunk, or nothing where the text is held back."""
        text = event.reasoning + event.text
        if not (text or event.logprobs):
            return b""
        logprobs = "null"
        if event.logprobs:
            logprobs = json.dumps(_logprobs(event.logprobs))
        return self._chunk(index, text, logprobs, "null")

    def finished(self, index: int, event: Finished) -> bytes:
        """Return the chunk with the reason."""
        return self._chunk(index, "", "null", quoted(Choice(finished=event).finish_reason))

    def end(self, usage: TokenUsage) -> bytes:
        """Return the usage, where it is wanted, and the end."""
        if not self._include_usage:
            return DONE
        counted = json.dumps(usage_json(usage), separators=(",", ":"))
        return f'{self._head},"choices":[],"usage":{counted}}}\n\n'.encode("ascii") + DONE

    def failed(self, error: ApiError) -> bytes:
        """Return the error and the end."""
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
        "Go on with a text",
        schema=CompletionRequest,
        streams=True,
        answer=("id", "object", "created", "model", "choices", "usage"),
    ),
)
