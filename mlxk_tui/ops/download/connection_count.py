"""How many connections are worth it: found out while downloading."""

from __future__ import annotations

_WINDOW_S = 0.4
_WORTHWHILE = 1.15
_AGAIN_S = 20.0


class Probe:
    """Doubles the connections as long as that brings more bytes; asks again after a while."""

    def __init__(self, width: int, most: int) -> None:
        self.width = width
        """Connections that there shall be."""
        self._most = most
        self._before = 0
        self._rate_before = 0.0
        self._since: float | None = None
        self._bytes = 0
        self._rest_until = 0.0

    def measure(self, now: float, fetched: int, *, busy: bool) -> int:
        """Return how many connections there shall be.

        Args:
            now: seconds, monotonic.
            fetched: bytes so far.
            busy: whether anything is being fetched; time without counts for nothing.
        """
        if self._since is None or not busy or now < self._rest_until:
            self._since, self._bytes = now, fetched
            return self.width
        if now - self._since < _WINDOW_S or fetched == self._bytes:
            return self.width
        rate = (fetched - self._bytes) / (now - self._since)
        self._since, self._bytes = now, fetched
        if self._before and rate < self._rate_before * _WORTHWHILE:
            self.width = self._before
            self._rest(now)
        elif self.width < self._most:
            self._before, self._rate_before = self.width, rate
            self.width = min(self.width * 2, self._most)
        else:
            self._rest(now)
        return self.width

    def _rest(self, now: float) -> None:
        self._before = 0
        self._rest_until = now + _AGAIN_S
