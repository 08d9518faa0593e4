"""Determines the length of the next range, and when to split a range that is being downloaded.

Each request costs a round trip without data. So a range contains all of a small file, or what its connection
downloads in a few seconds. A killed process loses nothing with long ranges, because received bytes are
recorded while they arrive. The last ranges are sized so that all connections finish together. Times are
monotonic seconds, rates are bytes per second.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from mlxk_tui.ops.download.blob_download import BlobDownload

PAGE = 16 << 10
"""Ranges start at multiples of this."""
SMALL_FILE = 1 << 20
"""Files up to this size are downloaded with one request."""
_RANGE_S = 3.0
"""Seconds that a range should take."""
_FIRST_RANGE = 4 << 20
"""Maximum length while no rate is known."""
_MIN_RANGE = 256 << 10
_MAX_RANGE = 64 << 20
_SETUP_ROUND_TRIPS = 3
"""Round trips until the first byte of a new connection: TCP, TLS, the request."""
_SPLIT_FACTOR = 2.0
"""A range is split if the rest of it takes this many times as long as a reconnect, and half a second."""
_SPLIT_MARGIN_S = 0.5
_MAX_WASTE = 0.008
"""Maximum share of the download that may be discarded when ranges are split."""
_SMOOTHING = 0.5
"""Weight of the latest range in the rate of a connection."""


@dataclass(eq=False)
class RangeTask:
    """A range that one connection downloads."""

    job: BlobDownload
    start: int
    end: int
    connection: int
    """Number of the connection."""
    began: float
    offset: int = field(init=False)
    """Offset of the next byte."""
    receiving: bool = False
    """Whether its first byte has arrived."""

    def __post_init__(self) -> None:
        self.offset = self.start

    @property
    def remaining(self) -> int:
        """Number of bytes that have not arrived."""
        return max(0, self.end - self.offset)


class RangePlanner:
    """Measures rates and round trips, and derives the lengths of ranges from them.

    Used under the scheduler's lock.
    """

    def __init__(self, total: int) -> None:
        """Create a planner without measurements.

        Args:
            total: bytes of the whole download, of which a small share may be discarded.
        """
        self.round_trip: float | None = None
        """Shortest time between a request and its response on an open connection."""
        self._rates: dict[int, float] = {}
        self._waste_left = total * _MAX_WASTE

    def record_response(self, seconds: float) -> None:
        """Record the time between a request and its response."""
        self.round_trip = seconds if self.round_trip is None else min(self.round_trip, seconds)

    def record_range(self, connection: int, count: int, seconds: float) -> None:
        """Record how many bytes a connection received in a time."""
        if count < PAGE or seconds <= 0:
            return
        rate = count / seconds
        before = self._rates.get(connection)
        self._rates[connection] = rate if before is None else before + _SMOOTHING * (rate - before)

    def rate(self, connection: int) -> float | None:
        """Return the rate of a connection, or the mean of the others if it is unknown."""
        known = self._rates.get(connection)
        if known is None and self._rates:
            known = sum(self._rates.values()) / len(self._rates)
        return known

    def length(
        self, connection: int, unclaimed: int, running: Collection[RangeTask], connections: int
    ) -> int:
        """Return how many bytes a connection should request.

        Args:
            connection: its number.
            unclaimed: bytes of all files that are neither on disk nor requested.
            running: the ranges of the other connections.
            connections: number of connections, including this one.
        """
        rate = self.rate(connection)
        left = unclaimed + sum(task.remaining for task in running)
        share = -(-left // max(1, connections))
        if rate is None:
            longest, shortest = _FIRST_RANGE, _MIN_RANGE
        else:
            mean = sum(self._rates.values()) / len(self._rates)
            share = int(share * rate / mean)
            longest = int(min(_MAX_RANGE, max(_MIN_RANGE, rate * _RANGE_S)))
            shortest = int(min(longest, max(_MIN_RANGE, rate * (self.round_trip or 0))))
        return max(shortest, min(longest, share))

    def split(self, connection: int, running: Collection[RangeTask]) -> tuple[RangeTask, int] | None:
        """Return the range whose end an idle connection should download, and the offset where that starts.

        The connection that loses the end must be opened again, and the bytes on their way to it are
        discarded. So a range is only split if waiting for it would take clearly longer.
        """
        rate = self.rate(connection)
        if rate is None:
            return None
        reconnect = _SETUP_ROUND_TRIPS * (self.round_trip or 0)
        slowest, slowest_s = None, 0.0
        for task in running:
            seconds = task.remaining / self._rates.get(task.connection, rate)
            if task.receiving and not task.job.single_connection and seconds > slowest_s:
                slowest, slowest_s = task, seconds
        if slowest is None or slowest_s < _SPLIT_FACTOR * reconnect + _SPLIT_MARGIN_S:
            return None
        other_rate = self._rates.get(slowest.connection, rate)
        wasted = other_rate * (self.round_trip or 0) + PAGE
        # Both finish together: kept / other_rate == (remaining - kept) / rate + reconnect.
        kept = (slowest.remaining / rate + reconnect) / (1 / other_rate + 1 / rate)
        border = slowest.offset + int(kept)
        border += -border % PAGE
        if wasted > self._waste_left or slowest.end - border < _MIN_RANGE:
            return None
        self._waste_left -= wasted
        return slowest, border
