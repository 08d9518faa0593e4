"""Runs the generations of a request and merges their events into one stream.

Every generating route (chat, completions, ...) uses this module; none of them calls the engine directly.
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
    GenerationRequest,
    LoadProgress,
    PrefillProgress,
    Started,
    TokenLogprob,
    TokenUsage,
    ToolCall,
)
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import plural
from mlxk_tui.server.errors import BUSY, ApiError
from mlxk_tui.server.request_log import RequestEntry, RequestLog, RequestState

_MAX_LOGGED_ANSWER = 20_000
"""Maximum characters of an answer in the request log, if it keeps answers."""


@dataclass(frozen=True)
class GenerationPlan:
    """The model of a request and the generation of each choice."""

    model: RunnableModel
    generations: tuple[GenerationRequest, ...]
    n: int = 1
    """Choices per prompt; choices of the same prompt are consecutive."""


@dataclass
class Choice:
    """One collected choice of a response."""

    output: list[str] = field(default_factory=list)
    """Text and reasoning in the order of generation."""
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None

    def add(self, event: Event) -> None:
        """Add an event of this choice."""
        if isinstance(event, Delta):
            if event.reasoning:
                self.reasoning.append(event.reasoning)
                self.output.append(event.reasoning)
            if event.text:
                self.text.append(event.text)
                self.output.append(event.text)
            self.tool_calls += event.tool_calls
            self.logprobs += event.logprobs
        elif isinstance(event, Finished):
            self.finished = event

    @property
    def finish_reason(self) -> str:
        """The `finish_reason` of OpenAI's API."""
        if self.finished is None or self.finished.finish_reason is FinishReason.CANCELLED:
            return FinishReason.STOP.value
        reason: str = self.finished.finish_reason.value
        return reason


class Cancellable(Protocol):
    """Work that counts as a generation and can be cancelled."""

    def cancel(self) -> None:
        """Cancel the work; whoever awaits it gets `cancelled`."""


class Generator:
    """Starts generations, limits their number, and cancels them all when the server stops."""

    def __init__(self, engine: Engine, log: RequestLog) -> None:
        self.max_queue = 128
        """Maximum number of generations, queued ones included."""
        self.running = 0
        """Number of running and queued generations."""
        self.rejected = 0
        """Number of requests rejected because the queue was full."""
        self.log_prompts = False
        self._engine = engine
        self._log = log
        self._active: set[Cancellable] = set()

    def generate(self, plan: GenerationPlan, entry: RequestEntry) -> ChoiceStream:
        """Return the events of all choices of a request; use it as an async context manager.

        Raises:
            ApiError: when the context is entered: 429 if the queue is full, 400 if the request alone has
                more choices than the queue takes.
        """
        return ChoiceStream(self, self._engine, self._log, plan, entry)

    def cancel_all(self) -> None:
        """Cancel every generation; their requests fail with `cancelled`."""
        for work in self._active:
            work.cancel()

    def admit(self, work: Cancellable, count: int) -> None:
        """Add `count` generations to the queue.

        Raises:
            ApiError: 429 if the queue is full; 400 if `count` is more than the queue takes.
        """
        if self.running + count > self.max_queue:
            self.rejected += 1
            if count > self.max_queue:
                raise ApiError(
                    400,
                    ErrorType.VALIDATION_ERROR.value,
                    f"The request asks for {count} choices, but the server takes at most {self.max_queue}. "
                    "Ask for fewer.",
                )
            raise ApiError(
                429,
                BUSY,
                f"The queue is full ({plural(self.running, 'generation')}). Try again later.",
                retry_after_s=self._retry_after(),
            )
        self.running += count
        self._active.add(work)

    def release(self, work: Cancellable, count: int) -> None:
        """Remove `count` generations that `admit` added."""
        self.running -= count
        self._active.discard(work)

    def _retry_after(self) -> int:
        """Return the seconds until a running generation has probably ended: the mean of recent requests."""
        recent = [entry.duration_s or 0.0 for entry in self._log.finished[-20:] if entry.completion_tokens]
        return max(1, min(60, math.ceil(sum(recent) / len(recent)))) if recent else 1


class ChoiceStream:
    """The events of all choices of one request, each with the index of its choice.

    An async context manager and iterator. Leaving the context cancels running generations within one step
    of the engine.
    """

    def __init__(
        self,
        generator: Generator,
        engine: Engine,
        log: RequestLog,
        plan: GenerationPlan,
        entry: RequestEntry,
    ) -> None:
        self.usages: dict[int, TokenUsage] = {}
        """Token counts of the finished choices, by index."""
        self._generator = generator
        self._log = log
        self._plan = plan
        self._entry = entry
        self._streams: list[GenerationStream] = []
        self._engine = engine
        self._merged: AsyncGenerator[tuple[int, Event], None] | None = None
        self._cancelled = False
        self._logged = 0

    async def __aenter__(self) -> ChoiceStream:
        self._generator.admit(self, len(self._plan.generations))
        self._entry.model = self._plan.model.name
        if self._generator.log_prompts:
            self._entry.prompt = prompt_text(self._plan.generations[0])
            self._entry.answer = ""
        self._streams = [
            self._engine.generate(self._plan.model, generation) for generation in self._plan.generations
        ]
        if len(self._streams) > 1:
            self._merged = _merge(self._streams)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._generator.release(self, len(self._plan.generations))
        for stream in self._streams:
            await stream.aclose()
        if self._merged is not None:
            await self._merged.aclose()

    def __aiter__(self) -> ChoiceStream:
        return self

    async def __anext__(self) -> tuple[int, Event]:
        if self._merged is None:
            index, event = 0, await self._streams[0].__anext__()
        else:
            index, event = await self._merged.__anext__()
        self._record(index, event)
        return index, event

    def cancel(self) -> None:
        """Cancel all generations; iterating then raises `cancelled`."""
        self._cancelled = True
        for stream in self._streams:
            stream.cancel()

    @property
    def usage(self) -> TokenUsage:
        """Token counts of the whole request; a prompt shared by several choices counts once."""
        prompts: dict[int, TokenUsage] = {}
        for index, usage in self.usages.items():
            prompts.setdefault(index // self._plan.n, usage)
        return TokenUsage(
            prompt_tokens=sum(usage.prompt_tokens for usage in prompts.values()),
            cached_tokens=sum(usage.cached_tokens for usage in prompts.values()),
            completion_tokens=sum(usage.completion_tokens for usage in self.usages.values()),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in self.usages.values()),
        )

    def _record(self, index: int, event: Event) -> None:
        entry = self._entry
        if isinstance(event, Delta):
            if entry.ttft_s is None and event.tokens:
                entry.ttft_s = time.monotonic() - entry.arrived
                self._log.set_state(entry, RequestState.GENERATING)
            entry.completion_tokens += event.tokens
            if entry.answer is not None and self._logged < _MAX_LOGGED_ANSWER and index == 0:
                entry.answer += event.text
                self._logged += len(event.text)
        elif isinstance(event, Started):
            entry.prompt_tokens = max(entry.prompt_tokens, event.prompt_tokens)
            self._log.set_state(entry, RequestState.READING)
        elif isinstance(event, PrefillProgress):
            self._log.set_state(entry, RequestState.READING)
        elif isinstance(event, LoadProgress):
            self._log.set_state(entry, RequestState.LOADING)
        else:
            self._finish(index, event)

    def _finish(self, index: int, event: Finished) -> None:
        if self._cancelled or event.finish_reason is FinishReason.CANCELLED:
            raise OpError(ErrorType.CANCELLED, "The server cancelled the response.", remedy=Remedy.TRY_LATER)
        self.usages[index] = event.usage
        usage, entry = self.usage, self._entry
        entry.prompt_tokens = usage.prompt_tokens
        entry.cached_tokens = usage.cached_tokens
        entry.completion_tokens = usage.completion_tokens
        entry.tokens_per_s = event.timings.generation_tps
        entry.finish_reason = event.finish_reason.value


async def collect(stream: ChoiceStream, count: int) -> list[Choice]:
    """Return all `count` choices of a request, once they have finished."""
    choices = [Choice() for _ in range(count)]
    async for index, event in stream:
        choices[index].add(event)
    return choices


async def _merge(streams: Iterable[GenerationStream]) -> AsyncGenerator[tuple[int, Event], None]:
    """Yield the events of several streams as they arrive; if one fails, all end."""
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
        running = len(tasks)
        while running:
            index, event = await queue.get()
            if event is None:
                running -= 1
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


def prompt_text(generation: GenerationRequest) -> str:
    """Return the prompt as text, for the request log."""
    if generation.messages is not None:
        return "\n".join(
            f"{message['role']}: {message.get('content') or ''}" for message in generation.messages
        )
    return generation.prompt if generation.prompt is not None else f"{len(generation.tokens or ())} tokens"
