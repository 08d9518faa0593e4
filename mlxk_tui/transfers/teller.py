"""Telling whoever listens what is different, at most ten times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from mlxk_tui.transfers.jobs import Transfer

INTERVAL = 0.1
"""Seconds between two changes."""


@dataclass(frozen=True)
class Change:
    """What is different now."""

    ids: frozenset[str] = frozenset()
    """Transfers that are further than before."""
    structure: bool = False
    """Whether a transfer came, went, moved, or is in another state."""
    ended: tuple[Transfer, ...] = ()
    """Transfers that were done or failed just now."""


Subscriber = Callable[[Change], None]


class Teller:
    """Gathers what happens and hands it out on the event loop, together."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self._ids: set[str] = set()
        self._structure = False
        self._ended: list[Transfer] = []
        self._told = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each change; returns how to end that."""
        self._subscribers.append(subscriber)

        def leave() -> None:
            with suppress(ValueError):
                self._subscribers.remove(subscriber)

        return leave

    def tell(
        self, ids: Iterable[str] = (), *, structure: bool = False, ended: Iterable[Transfer] = ()
    ) -> None:
        """Have this told soon."""
        self._ids.update(ids)
        self._structure = self._structure or structure
        self._ended += ended
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._told + INTERVAL - loop.time()), self._publish)

    def _publish(self) -> None:
        change = Change(frozenset(self._ids), self._structure, tuple(self._ended))
        self._ids, self._structure, self._ended = set(), False, []
        self._timer, self._told = None, asyncio.get_running_loop().time()
        for subscriber in list(self._subscribers):
            subscriber(change)

    def close(self) -> None:
        """Tell nothing more."""
        self._subscribers.clear()
        if self._timer is not None:
            self._timer.cancel()
