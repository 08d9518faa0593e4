"""Transfer rates of the last minute, for a sparkline, the current rate and the remaining time."""

from __future__ import annotations

from collections import deque

HISTORY_SECONDS = 60
"""Length of the history."""
_AVERAGE_SECONDS = 5
"""Seconds over which the current rate is averaged."""
_WARM_UP_SECONDS = 3
"""Seconds in which connections are still speeding up."""


class RateHistory:
    """Transferred bytes per second of the last minute. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int]] = deque(maxlen=HISTORY_SECONDS + 1)
        self._start: float | None = None
        self._last = 0

    def reset(self) -> None:
        """Clear the history; bytes before the next `add` don't count as transferred."""
        self._buckets.clear()
        self._start = None

    def add(self, now: float, bytes_done: int) -> None:
        """Record the total of transferred bytes. The first call after `reset` only sets the start."""
        if self._start is None:
            self._start, self._last = now, bytes_done
            return
        moved = max(0, bytes_done - self._last)  # it decreases when a file restarts
        self._last = bytes_done
        second = int(now)
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, self._buckets[-1][1] + moved)
        elif moved:
            self._buckets.append((second, moved))

    def skip(self, count: int) -> None:
        """Exclude `count` bytes from the next `add`, because they were not transferred now."""
        self._last += count

    def rate(self, now: float) -> float:
        """Return the average rate of the last 5 seconds, in bytes per second."""
        if self._start is None:
            return 0.0
        first = int(now) - _AVERAGE_SECONDS + 1
        moved = sum(count for second, count in self._buckets if second >= first)
        return moved / max(min(now - self._start, now - first), 0.5)

    def warming_up(self, now: float) -> bool:
        """Return whether it is too early to estimate the remaining time from the rate."""
        return self._start is None or now - self._start < _WARM_UP_SECONDS

    def stalled(self, now: float) -> bool:
        """Return whether no bytes were transferred in the last 5 seconds."""
        return self._start is not None and now - self._start >= _AVERAGE_SECONDS and self.rate(now) <= 0

    def history(self, now: float) -> list[int]:
        """Return the bytes of each complete second, up to the last 60, oldest first."""
        if self._start is None:
            return []
        last = int(now)
        length = min(HISTORY_SECONDS, last - int(self._start))
        by_second = dict(self._buckets)
        return [by_second.get(second, 0) for second in range(last - length, last)]
