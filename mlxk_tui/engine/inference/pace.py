"""How much of a prompt is read in one step: enough to be quick, little enough that others keep flowing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

_SMALLEST, _LARGEST = 32, 2048
_ALONE_S, _SHARED_S = 0.25, 0.08
"""How long a step may take: alone, where only a cancel waits for it, and while others stream."""


@dataclass
class Reading:
    """A step of reading."""

    tokens: int = 0


class Pace:
    """Learns how fast this model reads here."""

    def __init__(self) -> None:
        self._rate = 0.0  # tokens per second

    def chunk(self, *, shared: bool) -> int:
        """Return how many tokens the next prefill step should take, a power of two."""
        if not self._rate:
            return 128
        wanted = self._rate * (_SHARED_S if shared else _ALONE_S)
        size = _SMALLEST
        while size * 2 <= min(wanted, _LARGEST):
            size *= 2
        return size

    def learn(self, tokens: int, seconds: float) -> None:
        """Take note of a step; short ones say little of how long a chunk takes."""
        if tokens >= _SMALLEST and seconds > 0:
            rate = tokens / seconds
            self._rate = rate if not self._rate else 0.5 * self._rate + 0.5 * rate

    @contextlib.contextmanager
    def measured(self) -> Iterator[Reading]:
        """Learn from what is done inside, once its number of tokens is set."""
        begin = time.perf_counter()
        reading = Reading()
        yield reading
        self.learn(reading.tokens, time.perf_counter() - begin)
