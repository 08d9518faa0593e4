"""Determines the number of connections while downloading."""

from __future__ import annotations

from collections.abc import Sequence

FIRST_CONNECTIONS = 8
"""Connections to start with, the same number as huggingface_hub."""
_SHORT_FILE = 4 << 20
"""A file up to this size takes about as long as the round trips until its first byte, if the hub is far."""
_WINDOW_S = 0.4
_SETTLE_S = 1.0
"""Maximum wait in seconds for the first bytes of new connections: there may be nothing left for them."""
_MIN_GAIN = 1.15
_REST_S = 20.0


def initial_connections(sizes: Sequence[int], maximum: int) -> int:
    """Return the number of connections to start with: one for each short file, but at least eight.

    Args:
        sizes: bytes of the files.
        maximum: maximum number of connections.
    """
    short = sum(size <= _SHORT_FILE for size in sizes)
    return min(maximum, max(FIRST_CONNECTIONS, short))


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
        self._settle_until: float | None = None
        self._settled = False

    def measure(self, now: float, fetched: int, receiving: int) -> int:
        """Update and return the number of connections to use.

        Args:
            now: monotonic time in seconds.
            fetched: bytes received so far.
            receiving: number of connections that receive data. The rate is not measured while there are
                none, nor until new ones have received their first byte, which takes long with a far hub.
        """
        if self._settle_until is None:
            self._settle_until = now + _SETTLE_S
        self._settled = self._settled or receiving >= self.connections or now >= self._settle_until
        if self._since is None or not receiving or not self._settled or now < self._rest_until:
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
            self._settled, self._settle_until = False, now + _SETTLE_S
        else:
            self._rest(now)
        return self.connections

    def _rest(self, now: float) -> None:
        self._before = 0
        self._rest_until = now + _REST_S
