"""The client's side of one generation: loading its model, running in the worker, cancellation, end."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any

from mlxk_tui.engine.connection.connection import WorkerConnection
from mlxk_tui.engine.generation import (
    Delta,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    GenerationTimings,
    LoadProgress,
    Started,
    TokenUsage,
)
from mlxk_tui.engine.stream import GenerationStream
from mlxk_tui.ops.core.errors import OpError

_CANCEL_S = 2.0
"""Seconds after which a cancelled generation ends on the client's side, even if the worker is busy."""


class GenerationRun:
    """Connects a `GenerationStream` to the worker.

    Args:
        request: the request.
        connection: the connection to the worker.
        acquire: loads the model, reporting progress to its argument, and counts one more request of it.
        release: counts one request less.
        changed: called after the request was sent to the worker.
        spawn: starts a task.
    """

    def __init__(
        self,
        request: GenerationRequest,
        connection: WorkerConnection,
        *,
        acquire: Callable[[Callable[[LoadProgress], None]], Awaitable[object]],
        release: Callable[[], None],
        changed: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.stream: weakref.ref[GenerationStream] | None = None
        """The consumer's stream; a weak reference, so that dropping the stream cancels the generation."""
        self._request = request
        self._connection = connection
        self._acquire = acquire
        self._release = release
        self._changed = changed
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None
        self._id: int | None = None
        self._cancelled = False
        self._started_at = self._sent_at = 0.0
        self._load_s = 0.0
        self._usage = TokenUsage(0, 0, 0, 0)
        self._first_s = 0.0
        """Time of the first delta, in seconds after the request was sent."""
        self._cancel_timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start loading the model and then the generation, in a task."""
        self._started_at = time.monotonic()
        self._task = self._spawn(self._start())

    def cancel(self) -> None:
        """Cancel the generation, whether it waits for its model or runs."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._id is not None:
            self._connection.cancel(self._id)
            self._cancel_timer = asyncio.get_running_loop().call_later(_CANCEL_S, self._finish_locally)
        elif self._task is not None:
            self._task.cancel()

    async def _start(self) -> None:
        try:
            if self._cancelled:
                raise asyncio.CancelledError
            await self._acquire(self._push)
        except OpError as error:
            self._end(error)
        except asyncio.CancelledError:
            self._push(_finished_before_start())
            if not self._cancelled:
                raise
        else:
            self._sent_at = time.monotonic()
            self._id = self._connection.generate(self._request, self._on_event, self._on_end)
            self._changed()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Finished):
            event = replace(event, timings=self._timings(event.timings))
        elif isinstance(event, Started):
            self._usage = replace(
                self._usage, prompt_tokens=event.prompt_tokens, cached_tokens=event.cached_tokens
            )
        elif isinstance(event, Delta):
            self._first_s = self._first_s or time.monotonic() - self._sent_at
            self._usage = replace(self._usage, completion_tokens=self._usage.completion_tokens + event.tokens)
        self._push(event)

    def _finish_locally(self) -> None:
        """Send `Finished` with the counts known here; the worker's own `Finished` is then ignored."""
        timings = replace(_no_timings(), time_to_first_token_s=self._first_s)
        self._push(Finished(FinishReason.CANCELLED, self._usage, self._timings(timings)))

    def _on_end(self, error: OpError | None) -> None:
        if self._cancel_timer is not None:
            self._cancel_timer.cancel()
        if error is not None:
            self._end(error)
        self._release()

    def _timings(self, timings: GenerationTimings) -> GenerationTimings:
        """Add the time before the request was sent to the worker's timings."""
        before = self._sent_at - self._started_at
        return replace(
            timings,
            queued_s=timings.queued_s + before,
            time_to_first_token_s=timings.time_to_first_token_s + before,
            load_s=self._load_s,
        )

    def _push(self, event: Event) -> None:
        if isinstance(event, LoadProgress):
            self._load_s = time.monotonic() - self._started_at
        stream = self.stream() if self.stream is not None else None
        if stream is not None:
            stream.push(event)

    def _end(self, error: OpError) -> None:
        stream = self.stream() if self.stream is not None else None
        if stream is not None:
            stream.end(error)


def _finished_before_start() -> Finished:
    return Finished(FinishReason.CANCELLED, TokenUsage(0, 0, 0, 0), _no_timings())


def _no_timings() -> GenerationTimings:
    return GenerationTimings(0, 0, 0, 0, 0, 0, 0)
