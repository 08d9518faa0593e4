"""The rate limits of downloads: one for all of them together, and one for each."""

from __future__ import annotations

from mlxk_tui.ops.core.events import Publisher
from mlxk_tui.ops.download.rate_limit import RateLimit
from mlxk_tui.transfers.jobs import Pull

_MB = 1_000_000


class TransferRateLimits:
    """Limits that apply at once, also to running downloads. Uploads have none.

    Args:
        total: bytes per second of all downloads together; None for no limit.
    """

    def __init__(self, total: float | None = None) -> None:
        self.changed: Publisher[float | None] = Publisher()
        """Published with the new limit of all downloads when `set_total` changes it."""
        self._total = RateLimit(total)
        self._own: dict[str, RateLimit] = {}

    @property
    def total(self) -> float | None:
        """Bytes per second of all downloads together; None for no limit."""
        return self._total.rate

    def set_total(self, rate: float | None) -> None:
        """Change the limit of all downloads together."""
        if rate != self._total.rate:
            self._total.rate = rate
            self.changed.publish(rate)

    def of(self, job: Pull) -> tuple[RateLimit, RateLimit]:
        """Return the limits of a download: the common one, and its own as the job states it."""
        own = self._own.setdefault(job.key, RateLimit())
        if own.rate != job.rate_limit:
            own.rate = job.rate_limit
        return self._total, own


def from_megabytes(value: float) -> float | None:
    """Convert MB/s, where 0 means no limit, to bytes per second."""
    return value * _MB if value > 0 else None


def to_megabytes(rate: float | None) -> float:
    """Convert bytes per second to MB/s; no limit is 0."""
    return 0.0 if rate is None else rate / _MB
