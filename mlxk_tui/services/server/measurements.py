"""Measurements of the server: tokens per second, open requests, and the number of failed ones."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from mlxk_tui.server.request_log import RequestEntry

SECONDS = 60
"""How far back the measurements reach."""


class ServerMeasurements:
    """Counts the requests of a server and samples them once a second while it runs.

    Args:
        live: returns the requests that are being answered.
        changed: called after a sample that differs from rest.
        sample_seconds: the time between two samples; 0 takes none.
    """

    def __init__(
        self,
        live: Callable[[], Sequence[RequestEntry]],
        changed: Callable[[], object],
        *,
        sample_seconds: float = 1.0,
    ) -> None:
        self.rates: deque[float] = deque(maxlen=SECONDS)
        """Tokens per second over all requests, one value a sample."""
        self.queue: deque[int] = deque(maxlen=SECONDS)
        """Open requests, one value a sample."""
        self.failed = 0
        """Requests that ended with an error."""
        self.sample_seconds = sample_seconds
        self._live = live
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._ended_tokens = 0
        self._sampled_tokens = 0
        self._sampled_at = 0.0

    def count(self, entry: RequestEntry) -> None:
        """Count a request that has ended; of one that has not there is nothing to count yet."""
        if not entry.live:
            self._ended_tokens += entry.completion_tokens
            self.failed += entry.error is not None

    def start(self) -> None:
        """Begin to sample."""
        self._sampled_at = time.monotonic()
        self._sample_later()

    def stop(self) -> None:
        """Take no more samples, and forget those of the last minute."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.rates.clear()
        self.queue.clear()

    def _sample_later(self) -> None:
        if self.sample_seconds > 0:
            self._timer = asyncio.get_running_loop().call_later(self.sample_seconds, self._sample)

    def _sample(self) -> None:
        now, live = time.monotonic(), self._live()
        tokens = self._ended_tokens + sum(entry.completion_tokens for entry in live)
        rate = max(0, tokens - self._sampled_tokens) / max(now - self._sampled_at, 1e-3)
        self._sampled_tokens, self._sampled_at = tokens, now
        moving = rate > 0 or live or any(self.rates) or any(self.queue)
        self.rates.append(rate)
        self.queue.append(len(live))
        self._sample_later()
        if moving:
            self._changed()
