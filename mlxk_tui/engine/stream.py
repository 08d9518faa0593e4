"""The event stream of one generation: an async iterator with a queue no larger than the answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mlxk_tui.engine.delta_buffer import DeltaBuffer
from mlxk_tui.engine.generation import Delta, Event, Finished, LoadProgress, PrefillProgress


class GenerationStream:
    """Yields events until `Finished`. Closing it, or cancelling the task that awaits it, ends the generation.

    A slow consumer does not block the engine: deltas that arrive meanwhile are merged into one. A stream
    that is garbage-collected cancels its generation.

    Args:
        begin: starts the generation; called when the first event is awaited.
        cancel: cancels the generation.
    """

    def __init__(self, begin: Callable[[], None], cancel: Callable[[], None]) -> None:
        self._begin: Callable[[], None] | None = begin
        self._cancel: Callable[[], None] | None = cancel
        self._events: deque[Event | DeltaBuffer] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> GenerationStream:
        return self

    async def __anext__(self) -> Event:
        if self._begin is not None and not self._closed:
            self._loop = asyncio.get_running_loop()
            begin, self._begin = self._begin, None
            begin()
        while True:
            if self._events:
                event = self._events.popleft()
                return event.to_delta() if isinstance(event, DeltaBuffer) else event
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._ended or self._closed:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self._close()
                raise
            finally:
                self._waiter = None

    async def aclose(self) -> None:
        """Cancel the generation if it still runs, and yield no further event."""
        self._close()

    def cancel(self) -> None:
        """Cancel the generation but let the iterator continue to its `Finished`, with the final counts."""
        if self._cancel is not None:
            self._cancel()

    def push(self, event: Event) -> None:
        """Append an event; called by the engine."""
        if self._closed or self._ended:
            return
        last = self._events[-1] if self._events else None
        if isinstance(event, Delta):
            if not isinstance(last, DeltaBuffer) or not last.can_append(event):
                last = DeltaBuffer()
                self._events.append(last)
            last.append(event)
        elif isinstance(event, (PrefillProgress, LoadProgress)) and type(last) is type(event):
            self._events[-1] = event
        else:
            self._events.append(event)
        if isinstance(event, Finished):
            self.end()
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """End the stream, or make it raise `error` after the queued events; called by the engine."""
        ended, self._ended = self._ended, True
        self._cancel = None
        if not (self._closed or ended):
            self._error = error
        self._wake()

    def _close(self) -> None:
        self._closed = True
        self._begin = None
        self._events.clear()
        self._error = None
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __del__(self) -> None:
        cancel, loop = self._cancel, self._loop
        if cancel is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(cancel)
