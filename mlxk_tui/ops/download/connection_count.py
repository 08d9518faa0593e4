"""Determines the number of connections while downloading."""

from __future__ import annotations

_WINDOW_S = 0.4
_MIN_GAIN = 1.15
_REST_S = 20.0


class ConnectionTuner:
    """Doubles the number of connections while that increases the rate; tries again after a rest."""

    def __init__(self, connections: int, max_connections: int) -> None:
        self.connections = connections
        """The number of connections to use."""
        self._max_connections = max_connections
        self._before = 0
        self._rate_before = 0.0
        self._since: float | None = None
        self._bytes = 0
        self._rest_until = 0.0

    def measure(self, now: float, fetched: int, *, busy: bool) -> int:
        """Update and return the number of connections to use.

        Args:
            now: monotonic time in seconds.
            fetched: bytes received so far.
            busy: whether a download is active; idle time is not measured.
        """
        if self._since is None or not busy or now < self._rest_until:
            self._since, self._bytes = now, fetched
            return self.connections
        if now - self._since < _WINDOW_S or fetched == self._bytes:
            return self.connections
        rate = (fetched - self._bytes) / (now - self._since)
        self._since, self._bytes = now, fetched
        if self._before and rate < self._rate_before * _MIN_GAIN:
            self.connections = self._before
            self._rest(now)
        elif self.connections < self._max_connections:
            self._before, self._rate_before = self.connections, rate
            self.connections = min(self.connections * 2, self._max_connections)
        else:
            self._rest(now)
        return self.connections

    def _rest(self, now: float) -> None:
        self._before = 0
        self._rest_until = now + _REST_S
