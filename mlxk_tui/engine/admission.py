"""Admits requests to the model in memory, in order of arrival, and switches models between them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Admission(Enum):
    """What an admitted request may do."""

    RUN = "run"
    """Generate: its model is loaded."""
    SWITCH = "switch"
    """Load or unload a model: no other request runs, and none starts until `finish_switch`."""


@dataclass(eq=False)
class _Waiter:
    key: str | None
    admitted: asyncio.Future[Admission] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class AdmissionQueue:
    """A first-in, first-out queue of requests for models, of which one is in memory.

    Requests for the model in memory run concurrently. A request for another model waits until they have
    ended, and later requests wait behind it. So a switch neither interrupts a stream nor waits forever.
    Call all methods from the same event loop.

    Args:
        on_change: called after the properties below have changed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.loaded: str | None = None
        """Key of the model in memory."""
        self.running = 0
        """Number of running requests."""
        self._on_change = on_change
        self._queue: deque[_Waiter] = deque()
        self._switching = False

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether no request runs or waits, and no model is being loaded or unloaded."""
        return not (self.running or self._queue or self._switching)

    async def enter(self, key: str | None) -> Admission:
        """Wait for admission.

        Args:
            key: the requested model; None to unload.

        Returns:
            RUN, to be followed by `leave`, or SWITCH, to be followed by `finish_switch`.
        """
        waiter = _Waiter(key)
        self._queue.append(waiter)
        self._admit()
        try:
            return await waiter.admitted
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def leave(self) -> None:
        """End a running request."""
        self.running -= 1
        self._admit()

    def finish_switch(self, loaded: str | None, *, run: bool = False) -> None:
        """End a switch.

        Args:
            loaded: key of the model that is now in memory.
            run: the request that switched continues as a running request.
        """
        self.loaded = loaded
        self._switching = False
        self.running += run
        self._admit()

    def on_model_lost(self) -> None:
        """Note that the model in memory was lost, because the worker ended."""
        self.loaded = None
        self._admit()

    def reject_all(self, error: BaseException) -> None:
        """Make all waiting requests raise `error`."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.admitted.done():
                waiter.admitted.set_exception(error)
                waiter.admitted.exception()  # mark as retrieved, in case its task was cancelled
        self._on_change()

    def _admit(self) -> None:
        while self._queue and not self._switching:
            head = self._queue[0]
            if head.admitted.cancelled():
                pass
            elif head.key is not None and head.key == self.loaded:
                self.running += 1
                head.admitted.set_result(Admission.RUN)
            elif self.running == 0:
                self._switching = True
                head.admitted.set_result(Admission.SWITCH)
            else:
                break
            self._queue.popleft()
        self._on_change()

    def _withdraw(self, waiter: _Waiter) -> None:
        """Remove a cancelled request, and undo its admission if it had one."""
        admitted = waiter.admitted
        if waiter in self._queue:
            self._queue.remove(waiter)
            self._admit()
        elif admitted.done() and not admitted.cancelled() and admitted.exception() is None:
            if admitted.result() is Admission.RUN:
                self.leave()
            else:
                self.finish_switch(self.loaded)
