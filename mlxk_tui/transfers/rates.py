"""How fast bytes moved lately: a minute of seconds, for a sparkline, a rate and the time that is left."""

from __future__ import annotations

from collections import deque

SECONDS = 60
"""How much is kept."""
_RECENT = 5
"""Seconds that the present rate is an average of."""
_YOUNG = 3
"""Seconds in which the connections only just begin to bring something."""


class RateHistory:
    """Bytes by second; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int]] = deque(maxlen=SECONDS + 1)
        self._began: float | None = None
        self._last = 0

    def begin(self) -> None:
        """Start anew: what is there before the first `add` was not moved now."""
        self._buckets.clear()
        self._began = None

    def add(self, now: float, bytes_done: int) -> None:
        """Note how many bytes are done in all. The first call after `begin` only says where it starts."""
        if self._began is None:
            self._began, self._last = now, bytes_done
            return
        moved = max(0, bytes_done - self._last)  # less than before: a file began again
        self._last = bytes_done
        second = int(now)
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1] = (second, self._buckets[-1][1] + moved)
        elif moved:
            self._buckets.append((second, moved))

    def skip(self, count: int) -> None:
        """Leave out bytes that are about to be counted as done and were not moved now."""
        self._last += count

    def rate(self, now: float) -> float:
        """Return the rate of the last seconds, in bytes per second."""
        if self._began is None:
            return 0.0
        first = int(now) - _RECENT + 1
        moved = sum(count for second, count in self._buckets if second >= first)
        return moved / max(min(now - self._began, now - first), 0.5)

    def young(self, now: float) -> bool:
        """Tell whether too little time has passed for the rate to say anything about what is to come."""
        return self._began is None or now - self._began < _YOUNG

    def stalled(self, now: float) -> bool:
        """Tell whether nothing has moved for the seconds that the rate is an average of."""
        return self._began is not None and now - self._began >= _RECENT and self.rate(now) <= 0

    def history(self, now: float) -> list[int]:
        """Return the bytes of each of the last whole seconds since the beginning, oldest first."""
        if self._began is None:
            return []
        last = int(now)
        length = min(SECONDS, last - int(self._began))
        by_second = dict(self._buckets)
        return [by_second.get(second, 0) for second in range(last - length, last)]
