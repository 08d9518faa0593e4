"""Events: the progress of a running operation, and publishing changes to subscribers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """Progress of a long operation, sent at most about ten times a second for each file."""

    stage: str
    """The current stage: `scan`, `verify`, `remove`, `prune`, `clone`, `pull`, `push`, `load`, `check`,
    or `wait` while another process holds the lock."""
    file: str
    """The file or model being processed; empty when the event is about the whole operation."""
    bytes_done: int
    """Bytes finished so far, over all files."""
    bytes_total: int
    """Total bytes; 0 while unknown."""
    rate: float
    """Bytes per second; a recent average for long operations."""
    files_done: int = 0
    """Files or models finished so far."""
    files_total: int = 0
    """Total files or models; 0 while unknown."""
    file_bytes_done: int = 0
    """Bytes of `file` finished so far; 0 where single files are not counted."""
    file_bytes_total: int = 0
    """Size of `file` in bytes; 0 while unknown."""


OnEvent = Callable[[Progress], None]
"""Receives events, possibly in a worker thread; must return immediately."""


def ignore_event(event: Progress) -> None:
    """Discard an event: the default `on_event` of every operation."""


Unsubscribe = Callable[[], None]
"""Ends a subscription; may be called repeatedly."""


class Publisher(Generic[T]):
    """Calls its subscribers with each published value.

    It belongs to the event loop's thread; other threads publish with
    `loop.call_soon_threadsafe(publisher.publish, value)`. `publish` calls the subscribers in the order of
    their subscription; they must return immediately. An exception of a subscriber is logged, and the others
    still get the value. A subscriber is referenced until it unsubscribes.
    """

    def __init__(self) -> None:
        self._subscribers: dict[object, Callable[[T], object]] = {}

    @property
    def subscriptions(self) -> int:
        """The number of current subscriptions."""
        return len(self._subscribers)

    def subscribe(self, callback: Callable[[T], object]) -> Unsubscribe:
        """Call `callback` with each value from now on; return a function that ends the subscription."""
        key = object()
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    def publish(self, value: T) -> None:
        """Call every subscriber, except those that unsubscribe meanwhile."""
        for key, callback in list(self._subscribers.items()):
            if key in self._subscribers:
                try:
                    callback(value)
                except Exception:
                    import logging  # costs 3 ms; needed only for an error

                    logging.getLogger("mlxk_tui").exception("A subscriber failed.")
