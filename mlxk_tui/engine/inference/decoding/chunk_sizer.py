"""Chooses the chunk size of prefill from measured times, so that a step takes at most about a second.

A large chunk is efficient; a small one lets other streams continue. The first chunk is small, and each one is
at most four times as large as the largest before it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

_FIRST, _USUAL, _LARGEST = 8, 32, 2048
"""Chunk sizes in tokens: the first one, the usual minimum on a machine that is fast enough, the maximum."""
_GROWTH = 4
_ALONE_S, _SHARED_S = 0.25, 0.08
"""Target duration of a step: of a single request, and while other requests stream."""
_LONGEST_S = 1.0
"""Maximum duration of a chunk of the usual minimum size; on a slower machine the chunk is smaller."""
_CONTEXT = 1024
"""Context length up to which it has no effect; beyond it the cost is measured for each doubling."""


@dataclass
class ChunkMeasurement:
    """The size of one prefill step; filled in by the caller of `ChunkSizer.measure`."""

    tokens: int = 0
    """Rows times tokens, including padding."""
    context: int = 0
    """Tokens in the cache of the longest row before the step."""


@dataclass
class _Cost:
    """The measured cost of prefill in one range of context lengths."""

    seconds_per_token: float
    tokens: int
    """Size of the largest chunk so far; the cost of larger ones is unknown."""


class ChunkSizer:
    """Measures the prefill speed of a model and chooses chunk sizes."""

    def __init__(self) -> None:
        self._costs: dict[int, _Cost] = {}
        self._shortest_s = float("inf")

    def next_size(self, *, shared: bool, context: int = 0) -> int:
        """Return the size of the next chunk in tokens, all rows together: a power of two.

        Args:
            shared: other requests wait for their next token meanwhile.
            context: tokens in the cache of the longest row.
        """
        cost = self._cost(context)
        if cost is None:
            return _FIRST
        size = (_SHARED_S if shared else _ALONE_S) / cost.seconds_per_token
        # Below the usual minimum most of a step's time is overhead of the model.
        size = max(size, min(_USUAL, _LONGEST_S / cost.seconds_per_token))
        return _power_of_two(min(size, _GROWTH * cost.tokens, _LARGEST))

    def expected_s(self, tokens: int, context: int = 0) -> float:
        """Return the expected duration of a chunk of `tokens` tokens, in seconds; 0 if unknown."""
        cost = self._cost(context)
        return cost.seconds_per_token * tokens if cost is not None else 0.0

    def record(self, tokens: int, seconds: float, context: int = 0) -> None:
        """Record the duration of a chunk.

        Args:
            tokens: its size, all rows together.
            seconds: its duration.
            context: tokens in the cache of the longest row before it.
        """
        if tokens <= 0:
            return
        seconds_per_token = max(seconds, 1e-6) / tokens
        self._shortest_s = min(self._shortest_s, seconds)
        octave = _octave(context)
        cost = self._costs.get(octave)
        if cost is None:
            estimate = self._cost(context)
            if estimate is not None and self._is_overhead(tokens, seconds, seconds_per_token, estimate):
                return
            self._costs[octave] = _Cost(seconds_per_token, tokens)
        elif not self._is_overhead(tokens, seconds, seconds_per_token, cost):
            cost.seconds_per_token = 0.5 * cost.seconds_per_token + 0.5 * seconds_per_token
            cost.tokens = max(cost.tokens, tokens)

    @contextlib.contextmanager
    def measure(self) -> Iterator[ChunkMeasurement]:
        """Measure and record the step inside the `with` block, which must set the yielded `tokens`."""
        begin = time.perf_counter()
        measurement = ChunkMeasurement()
        yield measurement
        self.record(measurement.tokens, time.perf_counter() - begin, measurement.context)

    def _is_overhead(self, tokens: int, seconds: float, seconds_per_token: float, cost: _Cost) -> bool:
        """Return whether a chunk cost more per token only because it was small: most of it was overhead."""
        typical = seconds <= max(_SHARED_S, 3 * self._shortest_s)
        return tokens < _USUAL <= cost.tokens and seconds_per_token > cost.seconds_per_token and typical

    def _cost(self, context: int) -> _Cost | None:
        """Return the measured cost at a context length, else an estimate from other lengths."""
        octave = _octave(context)
        if octave in self._costs:
            return self._costs[octave]
        shorter = [other for other in self._costs if other < octave]
        if shorter:  # at worst all of the cost is attention, which doubles with the context
            nearest = max(shorter)
            cost = self._costs[nearest]
            return _Cost(cost.seconds_per_token * 2.0 ** (octave - nearest), cost.tokens)
        return self._costs[min(self._costs)] if self._costs else None


def _octave(context: int) -> int:
    """Return 0 below `_CONTEXT` tokens, and one more for each doubling."""
    return (context // _CONTEXT).bit_length()


def _power_of_two(size: float) -> int:
    return 1 << max(0, int(size).bit_length() - 1)
