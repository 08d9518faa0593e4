"""Who may use the model in memory: requests in the order they came, a switch between models among them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum


class Pass(Enum):
    """What a request may do now."""

    RUN = "run"
    """Generate: the model it wants is there."""
    SWITCH = "switch"
    """Load or unload: nothing else runs, and nothing starts until `switched`."""


@dataclass(eq=False)
class _Ticket:
    key: str | None
    anew: bool
    granted: asyncio.Future[Pass] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gate:
    """First come, first served.

    Requests for the model in memory run side by side. One for another model waits until they have
    ended, and whatever comes later waits behind it: no stream is cut off by a switch, and no switch is
    put off for ever. Belongs to one event loop.

    Args:
        on_change: called when the numbers below have changed.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.present: str | None = None
        """Key of the model in memory."""
        self.running = 0
        """Requests that run."""
        self._on_change = on_change
        self._queue: deque[_Ticket] = deque()
        self._switching = False

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether nothing runs, waits or is being loaded."""
        return not (self.running or self._queue or self._switching)

    async def enter(self, key: str | None, *, anew: bool = False) -> Pass:
        """Wait for one's turn.

        Args:
            key: the model that is wanted; None to have none.
            anew: be alone even if the model is there.

        Returns:
            RUN, to be followed by `leave`; or SWITCH, to be followed by `switched`.
        """
        ticket = _Ticket(key, anew or key is None)
        self._queue.append(ticket)
        self._pump()
        try:
            return await ticket.granted
        except asyncio.CancelledError:
            self._give_back(ticket)
            raise

    def leave(self) -> None:
        """A request has ended."""
        self.running -= 1
        self._pump()

    def switched(self, present: str | None, *, run: bool = False) -> None:
        """The one that was alone is done; with `run` it goes on as a request."""
        self.present = present
        self._switching = False
        self.running += run
        self._pump()

    def lost(self) -> None:
        """The model in memory is gone."""
        self.present = None
        self._pump()

    def refuse_all(self, error: BaseException) -> None:
        """Let every waiting request fail."""
        while self._queue:
            ticket = self._queue.popleft()
            if not ticket.granted.done():
                ticket.granted.set_exception(error)
                ticket.granted.exception()  # seen, should nobody wait any more
        self._on_change()

    def _pump(self) -> None:
        while self._queue and not self._switching:
            head = self._queue[0]
            if head.granted.cancelled():
                pass
            elif head.key is not None and head.key == self.present and not head.anew:
                self.running += 1
                head.granted.set_result(Pass.RUN)
            elif self.running == 0:
                self._switching = True
                head.granted.set_result(Pass.SWITCH)
            else:
                break
            self._queue.popleft()
        self._on_change()

    def _give_back(self, ticket: _Ticket) -> None:
        """The one that waited is not there any more."""
        if ticket in self._queue:
            self._queue.remove(ticket)
            self._pump()
        elif ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
            if ticket.granted.result() is Pass.RUN:
                self.leave()
            else:
                self.switched(self.present)
