"""Limits the rate of downloads, over all of their connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

_BURST_S = 0.25
"""Seconds at full rate that may be received at once after a pause."""
_READ_S = 0.03
"""Seconds at full rate that a connection reads at once: several connections read before they have to wait."""
_STEP_S = 0.2
_MIN_READ = 4096


class RateLimit:
    """A token bucket; can be shared by several downloads, and changed while they run.

    Args:
        rate: bytes per second; None for no limit.
    """

    def __init__(self, rate: float | None = None) -> None:
        self._lock = threading.Lock()
        self._rate = rate
        self._free_at = 0.0

    @property
    def rate(self) -> float | None:
        """Bytes per second, or None for no limit."""
        return self._rate

    @rate.setter
    def rate(self, rate: float | None) -> None:
        with self._lock:
            self._rate = rate
            self._free_at = 0.0  # no waiting because of the previous limit

    def consume(self, count: int) -> None:
        """Record received bytes."""
        with self._lock:
            if self._rate is not None:
                self._free_at = max(self._free_at, time.monotonic() - _BURST_S) + count / self._rate

    @property
    def wait_s(self) -> float:
        """Seconds to wait before the next read."""
        return max(0.0, self._free_at - time.monotonic())


def read_size(limits: Sequence[RateLimit], default: int) -> int:
    """Return how many bytes to read at once: fewer with a limit, so that pauses are short."""
    rates = [rate for limit in limits if (rate := limit.rate) is not None]
    return min([default, *(max(_MIN_READ, int(rate * _READ_S)) for rate in rates)])


def wait_for_limits(
    limits: Sequence[RateLimit], count: int, condition: threading.Condition, is_ended: Callable[[], bool]
) -> None:
    """Wait as long as the limits require after `count` received bytes, or until the download ends.

    Args:
        limits: at least one; the bytes count for all of them.
        count: bytes received.
        condition: notified when the download ends.
        is_ended: returns whether it has ended.
    """
    for limit in limits:
        limit.consume(count)
    until = max(time.monotonic() + limit.wait_s for limit in limits)
    # In short steps, because a limit can be raised meanwhile, which sets its own wait to nothing.
    while (seconds := min(until - time.monotonic(), max(limit.wait_s for limit in limits))) > 0:
        with condition:
            if condition.wait_for(is_ended, min(seconds, _STEP_S)):
                return
