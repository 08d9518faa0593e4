"""One generation as its consumer sees it: an async iterator of events that never grows beyond the answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mlxk_tui.engine.delta_buffer import DeltaBuffer
from mlxk_tui.engine.generation import Delta, Event, Finished, Loading, Prefill


class GenerationStream:
    """Yields events until `Finished`; closing it, or cancelling who waits for it, ends the generation.

    A consumer that is slow holds up nobody: what comes meanwhile becomes one larger `Delta`. One that
    forgets the stream altogether ends it too, when it is collected.

    Args:
        begin: starts the generation, with the first event that is waited for.
        abandon: ends the generation.
    """

    def __init__(self, begin: Callable[[], None], abandon: Callable[[], None]) -> None:
        self._begin: Callable[[], None] | None = begin
        self._abandon: Callable[[], None] | None = abandon
        self._events: deque[Event | DeltaBuffer] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._closed = False
        self._waiting: asyncio.Future[None] | None = None
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
                return event.whole() if isinstance(event, DeltaBuffer) else event
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._ended or self._closed:
                raise StopAsyncIteration
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            except asyncio.CancelledError:
                self._close()
                raise
            finally:
                self._waiting = None

    async def aclose(self) -> None:
        """End the generation, where it still runs; nothing is yielded any more."""
        self._close()

    def cancel(self) -> None:
        """End the generation and let the iterator go on to its `Finished`, with what was counted."""
        if self._abandon is not None:
            self._abandon()

    def push(self, event: Event) -> None:
        """Take an event in; called by the engine."""
        if self._closed or self._ended:
            return
        last = self._events[-1] if self._events else None
        if isinstance(event, Delta):
            if not isinstance(last, DeltaBuffer) or not last.takes(event):
                last = DeltaBuffer()
                self._events.append(last)
            last.add(event)
        elif isinstance(event, (Prefill, Loading)) and type(last) is type(event):
            self._events[-1] = event
        else:
            self._events.append(event)
        if isinstance(event, Finished):
            self.end()
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows, or only this error; called by the engine."""
        ended, self._ended = self._ended, True
        self._abandon = None
        if not (self._closed or ended):
            self._error = error
        self._wake()

    def _close(self) -> None:
        self._closed = True
        self._begin = None
        self._events.clear()
        self._error = None
        abandon, self._abandon = self._abandon, None
        if abandon is not None:
            abandon()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def __del__(self) -> None:
        abandon, loop = self._abandon, self._loop
        if abandon is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(abandon)
