"""Events: the progress of a running operation, and how a change reaches whoever subscribed to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One step of a long operation, sent at most about ten times a second for each file."""

    stage: str
    """What is going on: `scan`, `verify`, `remove`, `prune`, `clone`, `pull`, `push`, `load`, or `wait`:
    another process is at it."""
    file: str
    """The file or model being worked on; empty when the step is about the whole."""
    bytes_done: int
    """Bytes finished so far, over all files of the operation."""
    bytes_total: int
    """Bytes in all; 0 while unknown."""
    rate: float
    """Bytes per second, of late where the operation takes long."""
    files_done: int = 0
    """Files or models finished so far."""
    files_total: int = 0
    """Files or models in all; 0 while unknown."""
    file_bytes_done: int = 0
    """Bytes of `file` finished so far; 0 where files are not counted one by one."""
    file_bytes_total: int = 0
    """Bytes of `file` in all; 0 while unknown."""


OnEvent = Callable[[Progress], None]
"""Receives events; may be called from a worker thread and must return at once."""


def ignore(event: Progress) -> None:
    """Receive an event and do nothing: the default of every operation."""


Unsubscribe = Callable[[], None]
"""Ends a subscription; may be called more than once."""


class Publisher(Generic[T]):
    """Calls its subscribers with each value that is published.

    It belongs to one thread, that of the event loop; another thread publishes with
    `loop.call_soon_threadsafe(publisher.publish, value)`. Subscribers are called before `publish` returns, in
    the order in which they subscribed, and must return at once. An exception of one is logged; the others get
    the value all the same. A subscriber is referenced until it unsubscribes.
    """

    def __init__(self) -> None:
        self._subscribers: dict[object, Callable[[T], object]] = {}

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return len(self._subscribers)

    def subscribe(self, callback: Callable[[T], object]) -> Unsubscribe:
        """Call `callback` with each value from now on; returns what ends that."""
        key = object()
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    def publish(self, value: T) -> None:
        """Call every subscriber; whoever unsubscribes meanwhile is not called any more."""
        for key, callback in list(self._subscribers.items()):
            if key in self._subscribers:
                try:
                    callback(value)
                except Exception:
                    import logging  # 3 ms that no command should spend on its way to a fault

                    logging.getLogger("mlxk_tui").exception("A subscriber failed.")
