"""One generation on its way: waiting for its model, running in the worker, given up or at its end."""

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
    Generation,
    GenerationTimings,
    Loading,
    Started,
    TokenUsage,
)
from mlxk_tui.engine.stream import GenerationStream
from mlxk_tui.ops.core.errors import OpError

_CANCEL_S = 2.0
"""Seconds after which a generation that was given up ends here, whatever the worker is busy with."""


class GenerationRun:
    """A generation between its stream and the worker.

    Args:
        request: what is asked.
        connection: to the worker.
        acquire: brings the model into memory and counts a request of it; tells how loading gets on.
        release: counts the request out.
        changed: called when the worker has been asked.
        spawn: runs a coroutine to its end.
    """

    def __init__(
        self,
        request: Generation,
        connection: WorkerConnection,
        *,
        acquire: Callable[[Callable[[Loading], None]], Awaitable[object]],
        release: Callable[[], None],
        changed: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.stream: weakref.ref[GenerationStream] | None = None
        """The consumer's side; not held, so that a forgotten one is noticed."""
        self._request = request
        self._connection = connection
        self._acquire = acquire
        self._release = release
        self._changed = changed
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None
        self._id: int | None = None
        self._cancelled = False
        self._begun = self._sent = 0.0
        self._load_s = 0.0
        self._usage = TokenUsage(0, 0, 0, 0)
        self._first_s = 0.0
        """When the first text came, in seconds after the request was sent."""
        self._impatience: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start."""
        self._begun = time.monotonic()
        self._task = self._spawn(self._start())

    def cancel(self) -> None:
        """Give up, wherever it is."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._id is not None:
            self._connection.cancel(self._id)
            self._impatience = asyncio.get_running_loop().call_later(_CANCEL_S, self._end_here)
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
            self._push(_never_ran())
            if not self._cancelled:
                raise
        else:
            self._sent = time.monotonic()
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
            self._first_s = self._first_s or time.monotonic() - self._sent
            self._usage = replace(self._usage, completion_tokens=self._usage.completion_tokens + event.tokens)
        self._push(event)

    def _end_here(self) -> None:
        """Say that it ended, with what is known; the worker's own word comes too late and is not heard."""
        timings = replace(_no_timings(), time_to_first_token_s=self._first_s)
        self._push(Finished(FinishReason.CANCELLED, self._usage, self._timings(timings)))

    def _on_end(self, error: OpError | None) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
        if error is not None:
            self._end(error)
        self._release()

    def _timings(self, timings: GenerationTimings) -> GenerationTimings:
        """Count what happened before the worker heard of the request."""
        before = self._sent - self._begun
        return replace(
            timings,
            queued_s=timings.queued_s + before,
            time_to_first_token_s=timings.time_to_first_token_s + before,
            load_s=self._load_s,
        )

    def _push(self, event: Event) -> None:
        if isinstance(event, Loading):
            self._load_s = time.monotonic() - self._begun
        stream = self.stream() if self.stream is not None else None
        if stream is not None:
            stream.push(event)

    def _end(self, error: OpError) -> None:
        stream = self.stream() if self.stream is not None else None
        if stream is not None:
            stream.end(error)


def _never_ran() -> Finished:
    return Finished(FinishReason.CANCELLED, TokenUsage(0, 0, 0, 0), _no_timings())


def _no_timings() -> GenerationTimings:
    return GenerationTimings(0, 0, 0, 0, 0, 0, 0)
