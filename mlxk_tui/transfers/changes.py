"""Publishes changes of the queue: of states at once, of progress five times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from mlxk_tui.ops.core.events import Publisher
from mlxk_tui.transfers.jobs import Transfer

INTERVAL = 0.2
"""Seconds between publications of progress; each causes a repaint."""
_STRUCTURE_INTERVAL = 0.03
"""Seconds between publications of changed states, so that the effect of a key press is visible at once."""


@dataclass(frozen=True)
class Change:
    """The changes since the last publication."""

    ids: frozenset[str] = frozenset()
    """Transfers with progress."""
    structure: bool = False
    """Whether a transfer was added, removed, moved, or changed its state."""
    ended: tuple[Transfer, ...] = ()
    """Transfers that finished or failed."""


class ChangeNotifier:
    """Collects changes and publishes them together in the event loop.

    Args:
        publisher: publishes the changes to its subscribers.
    """

    def __init__(self, publisher: Publisher[Change]) -> None:
        self._publisher = publisher
        self._ids: set[str] = set()
        self._structure = False
        self._ended: list[Transfer] = []
        self._published_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._urgent = False

    def publish_soon(
        self, ids: Iterable[str] = (), *, structure: bool = False, ended: Iterable[Transfer] = ()
    ) -> None:
        """Add changes to the next publication; the arguments are the fields of `Change`."""
        self._ids.update(ids)
        self._structure = self._structure or structure
        self._ended += ended
        urgent = self._structure
        if self._timer is not None:
            if self._urgent or not urgent:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        due = self._published_at + (_STRUCTURE_INTERVAL if urgent else INTERVAL)
        self._timer, self._urgent = loop.call_later(max(0.0, due - loop.time()), self._publish), urgent

    def _publish(self) -> None:
        change = Change(frozenset(self._ids), self._structure, tuple(self._ended))
        self._ids, self._structure, self._ended = set(), False, []
        self._timer, self._urgent = None, False
        self._published_at = asyncio.get_running_loop().time()
        self._publisher.publish(change)

    def close(self) -> None:
        """Cancel the pending publication."""
        if self._timer is not None:
            self._timer.cancel()
