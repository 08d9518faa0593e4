"""Publishes what changed in the queue: another state at once, progress five times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from mlxk_tui.ops.core.events import Publisher
from mlxk_tui.transfers.jobs import Transfer

INTERVAL = 0.2
"""Seconds between two changes in which only bytes moved: each is a frame to draw."""
_AT_ONCE = 0.03
"""Seconds between two changes where a transfer is in another state: what a key did is seen at once."""


@dataclass(frozen=True)
class Change:
    """What is different now."""

    ids: frozenset[str] = frozenset()
    """Transfers that are further than before."""
    structure: bool = False
    """Whether a transfer came, went, moved, or is in another state."""
    ended: tuple[Transfer, ...] = ()
    """Transfers that were done or failed just now."""


class ChangeNotifier:
    """Gathers changes and publishes them together, on the event loop.

    Args:
        publisher: gets the changes.
    """

    def __init__(self, publisher: Publisher[Change]) -> None:
        self._publisher = publisher
        self._ids: set[str] = set()
        self._structure = False
        self._ended: list[Transfer] = []
        self._published_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False

    def publish_soon(
        self, ids: Iterable[str] = (), *, structure: bool = False, ended: Iterable[Transfer] = ()
    ) -> None:
        """Publish this with the next change."""
        self._ids.update(ids)
        self._structure = self._structure or structure
        self._ended += ended
        soon = self._structure
        if self._timer is not None:
            if self._soon or not soon:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        due = self._published_at + (_AT_ONCE if soon else INTERVAL)
        self._timer, self._soon = loop.call_later(max(0.0, due - loop.time()), self._publish), soon

    def _publish(self) -> None:
        change = Change(frozenset(self._ids), self._structure, tuple(self._ended))
        self._ids, self._structure, self._ended = set(), False, []
        self._timer, self._soon = None, False
        self._published_at = asyncio.get_running_loop().time()
        self._publisher.publish(change)

    def close(self) -> None:
        """Drop what has not been published."""
        if self._timer is not None:
            self._timer.cancel()
