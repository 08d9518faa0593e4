"""Turns neutral requests into the engine's events: several answers as one stream, ended together.

Every API of the server (chat, completions, ...) ends here; none of them talks to the engine itself.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from mlxk_tui.engine.client import Engine, GenerationStream
from mlxk_tui.engine.generation import (
    Delta,
    Event,
    Finished,
    FinishReason,
    Generation,
    Loading,
    Prefill,
    Started,
    TokenLogprob,
    TokenUsage,
    ToolCall,
)
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import plural
from mlxk_tui.server.errors import BUSY, ApiError
from mlxk_tui.server.request_log import RequestEntry, RequestLog, RequestState

_MAX_KEPT_ANSWER = 20_000
"""Characters of an answer that the request log keeps, where it keeps answers."""


@dataclass(frozen=True)
class GenerationPlan:
    """What a request comes down to: one model, and a generation for each choice of the answer."""

    model: Runnable
    generations: tuple[Generation, ...]
    n: int = 1
    """How many of them in a row answer the same prompt."""


@dataclass
class Choice:
    """One answer as it was collected."""

    said: list[str] = field(default_factory=list)
    """Text and reasoning in their order."""
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None

    def add(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, Delta):
            if event.reasoning:
                self.reasoning.append(event.reasoning)
                self.said.append(event.reasoning)
            if event.text:
                self.text.append(event.text)
                self.said.append(event.text)
            self.tool_calls += event.tool_calls
            self.logprobs += event.logprobs
        elif isinstance(event, Finished):
            self.finished = event

    @property
    def finish_reason(self) -> str:
        """The word of OpenAI's API."""
        if self.finished is None or self.finished.finish_reason is FinishReason.CANCELLED:
            return FinishReason.STOP.value
        reason: str = self.finished.finish_reason.value
        return reason


class Cancellable(Protocol):
    """What counts as a generation."""

    def cancel(self) -> None:
        """End it from outside."""


class Generator:
    """Lets requests generate, so many at a time, and ends them all when the server stops."""

    def __init__(self, engine: Engine, log: RequestLog) -> None:
        self.max_queue = 128
        """Most generations at once, those that wait included."""
        self.running = 0
        """Generations at present."""
        self.rejected = 0
        """Requests that were refused because too many others were there."""
        self.log_prompts = False
        self._engine = engine
        self._log = log
        self._working: set[Cancellable] = set()

    def generate(self, wanted: GenerationPlan, entry: RequestEntry) -> Answers:
        """Return the events of a request, to be used as an async context.

        Raises:
            ApiError: on entering: 429, too many generations.
        """
        return Answers(self, self._engine, self._log, wanted, entry)

    def cancel_all(self) -> None:
        """End every generation; their requests fail with `cancelled`."""
        for work in self._working:
            work.cancel()

    def enter(self, work: Cancellable, count: int) -> None:
        """Count a request in; for `Answers` and its like."""
        if self.running + count > self.max_queue:
            self.rejected += 1
            if count > self.max_queue:
                raise ApiError(
                    400,
                    ErrorType.VALIDATION_ERROR.value,
                    f"The request asks for {count} answers; the server takes at most {self.max_queue}.",
                )
            raise ApiError(
                429,
                BUSY,
                f"{plural(self.running, 'generation')} run or wait, which is all this server takes. "
                "Try again a little later.",
                retry_after_s=self._retry_after(),
            )
        self.running += count
        self._working.add(work)

    def leave(self, work: Cancellable, count: int) -> None:
        """Count a request out; for `Answers` and its like."""
        self.running -= count
        self._working.discard(work)

    def _retry_after(self) -> int:
        """Return seconds: what an answer took lately, since one of those that run has to end."""
        recent = [entry.duration_s or 0.0 for entry in self._log.finished[-20:] if entry.completion_tokens]
        return max(1, min(60, math.ceil(sum(recent) / len(recent)))) if recent else 1


class Answers:
    """The events of all choices of one request, each with its index; an async context and iterator.

    Leaving it frees every row that still runs, within a step.
    """

    def __init__(
        self,
        generator: Generator,
        engine: Engine,
        log: RequestLog,
        wanted: GenerationPlan,
        entry: RequestEntry,
    ) -> None:
        self.usages: dict[int, TokenUsage] = {}
        """Counted tokens of the choices that have ended."""
        self._generator = generator
        self._log = log
        self._wanted = wanted
        self._entry = entry
        self._streams: list[GenerationStream] = []
        self._engine = engine
        self._merged: AsyncGenerator[tuple[int, Event], None] | None = None
        self._cancelled = False
        self._kept = 0

    async def __aenter__(self) -> Answers:
        self._generator.enter(self, len(self._wanted.generations))
        self._entry.model = self._wanted.model.name
        if self._generator.log_prompts:
            self._entry.prompt = text_of(self._wanted.generations[0])
            self._entry.answer = ""
        self._streams = [
            self._engine.generate(self._wanted.model, generation) for generation in self._wanted.generations
        ]
        if len(self._streams) > 1:
            self._merged = _merge(self._streams)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._generator.leave(self, len(self._wanted.generations))
        for stream in self._streams:
            await stream.aclose()
        if self._merged is not None:
            await self._merged.aclose()

    def __aiter__(self) -> Answers:
        return self

    async def __anext__(self) -> tuple[int, Event]:
        if self._merged is None:
            index, event = 0, await self._streams[0].__anext__()
        else:
            index, event = await self._merged.__anext__()
        self._note(index, event)
        return index, event

    def cancel(self) -> None:
        """End it from outside: its consumer gets `cancelled`."""
        self._cancelled = True
        for stream in self._streams:
            stream.cancel()

    @property
    def usage(self) -> TokenUsage:
        """Counted tokens of the whole request; a prompt that several choices share counts once."""
        prompts: dict[int, TokenUsage] = {}
        for index, usage in self.usages.items():
            prompts.setdefault(index // self._wanted.n, usage)
        return TokenUsage(
            prompt_tokens=sum(usage.prompt_tokens for usage in prompts.values()),
            cached_tokens=sum(usage.cached_tokens for usage in prompts.values()),
            completion_tokens=sum(usage.completion_tokens for usage in self.usages.values()),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in self.usages.values()),
        )

    def _note(self, index: int, event: Event) -> None:
        entry = self._entry
        if isinstance(event, Delta):
            if entry.ttft_s is None and event.tokens:
                entry.ttft_s = time.monotonic() - entry.begun
                self._log.move(entry, RequestState.GENERATING)
            entry.completion_tokens += event.tokens
            if entry.answer is not None and self._kept < _MAX_KEPT_ANSWER and index == 0:
                entry.answer += event.text
                self._kept += len(event.text)
        elif isinstance(event, Started):
            entry.prompt_tokens = max(entry.prompt_tokens, event.prompt_tokens)
            self._log.move(entry, RequestState.READING)
        elif isinstance(event, Prefill):
            self._log.move(entry, RequestState.READING)
        elif isinstance(event, Loading):
            self._log.move(entry, RequestState.LOADING)
        else:
            self._finish(index, event)

    def _finish(self, index: int, event: Finished) -> None:
        if self._cancelled or event.finish_reason is FinishReason.CANCELLED:
            raise OpError(ErrorType.CANCELLED, "The server stopped the answer.", remedy=Remedy.TRY_LATER)
        self.usages[index] = event.usage
        usage, entry = self.usage, self._entry
        entry.prompt_tokens = usage.prompt_tokens
        entry.cached_tokens = usage.cached_tokens
        entry.completion_tokens = usage.completion_tokens
        entry.tokens_per_s = event.timings.generation_tps
        entry.finish_reason = event.finish_reason.value


async def collect(answers: Answers, count: int) -> list[Choice]:
    """Return all choices of a request, whole."""
    choices = [Choice() for _ in range(count)]
    async for index, event in answers:
        choices[index].add(event)
    return choices


async def _merge(streams: Iterable[GenerationStream]) -> AsyncGenerator[tuple[int, Event], None]:
    """Yield the events of several streams as they come; one that fails ends them all."""
    queue: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue(64)

    async def pump(index: int, stream: GenerationStream) -> None:
        try:
            async for event in stream:
                await queue.put((index, event))
        except OpError as error:
            await queue.put((index, error))
        else:
            await queue.put((index, None))

    tasks = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            index, event = await queue.get()
            if event is None:
                left -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield index, event
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


def text_of(generation: Generation) -> str:
    """Return a prompt, for a log that holds prompts."""
    if generation.messages is not None:
        return "\n".join(
            f"{message['role']}: {message.get('content') or ''}" for message in generation.messages
        )
    return generation.prompt if generation.prompt is not None else f"{len(generation.tokens or ())} tokens"
