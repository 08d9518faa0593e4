"""How much of a prompt is read in one step: enough to be quick, little enough that others keep flowing.

Whatever the machine, a step should be over in about a second. So the first one is small, each next one
at most four times as large as the one before, and what was measured decides.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

_FIRST, _USUAL, _LARGEST = 8, 32, 2048
"""Tokens of a step: of the first one, of the smallest on a machine that is quick enough, and at most."""
_GROWTH = 4
_ALONE_S, _SHARED_S = 0.25, 0.08
"""How long a step may take: alone, where only a cancel waits for it, and while others stream."""
_LONGEST_S = 1.0
"""How long one of the usual smallest size may take; on a slower machine it is smaller."""
_CONTEXT = 1024
"""Tokens of context up to which its length does not count; the cost is learned for each doubling of it."""


@dataclass
class Reading:
    """A step of reading."""

    tokens: int = 0
    """Rows times tokens, padding included."""
    context: int = 0
    """Tokens that the longest row holds before it."""


@dataclass
class _Learned:
    """What reading costs at contexts of about one length."""

    cost: float
    """Seconds a token."""
    tokens: int
    """Size of the largest step so far, up to which the cost is known."""


class Pace:
    """Learns how fast this model reads here."""

    def __init__(self) -> None:
        self._learned: dict[int, _Learned] = {}
        self._quickest_s = float("inf")

    def tokens(self, *, shared: bool, context: int = 0) -> int:
        """Return how many tokens the next step should read, over all its rows: a power of two.

        Args:
            shared: others wait for their next token meanwhile.
            context: tokens that the longest row holds already.
        """
        known = self._known(context)
        if known is None:
            return _FIRST
        wanted = (_SHARED_S if shared else _ALONE_S) / known.cost
        # Below this most of a step is not reading but the model's own overhead.
        wanted = max(wanted, min(_USUAL, _LONGEST_S / known.cost))
        return _power_of_two(min(wanted, _GROWTH * known.tokens, _LARGEST))

    def expected_s(self, tokens: int, context: int = 0) -> float:
        """Return how long a step of so many tokens should take, in seconds; 0 where nobody knows yet."""
        known = self._known(context)
        return known.cost * tokens if known is not None else 0.0

    def learn(self, tokens: int, seconds: float, context: int = 0) -> None:
        """Take note of a step over `tokens` tokens, all rows together."""
        if tokens <= 0:
            return
        cost = max(seconds, 1e-6) / tokens
        self._quickest_s = min(self._quickest_s, seconds)
        at = _octave(context)
        learned = self._learned.get(at)
        if learned is None:
            before = self._known(context)
            if before is not None and self._says_little(tokens, seconds, cost, before):
                return
            self._learned[at] = _Learned(cost, tokens)
        elif not self._says_little(tokens, seconds, cost, learned):
            learned.cost = 0.5 * learned.cost + 0.5 * cost
            learned.tokens = max(learned.tokens, tokens)

    @contextlib.contextmanager
    def measured(self) -> Iterator[Reading]:
        """Learn from what is done inside, once its number of tokens is set."""
        begin = time.perf_counter()
        reading = Reading()
        yield reading
        self.learn(reading.tokens, time.perf_counter() - begin, reading.context)

    def _says_little(self, tokens: int, seconds: float, cost: float, known: _Learned) -> bool:
        """Whether a step was dear only because it was short: it took what every step takes."""
        usual = seconds <= max(_SHARED_S, 3 * self._quickest_s)
        return tokens < _USUAL <= known.tokens and cost > known.cost and usual

    def _known(self, context: int) -> _Learned | None:
        """Return what is known of contexts of this length, or must be assumed of them."""
        at = _octave(context)
        if at in self._learned:
            return self._learned[at]
        shorter = [octave for octave in self._learned if octave < at]
        if shorter:  # at worst all the cost is attention's, which doubles with the context
            nearest = max(shorter)
            learned = self._learned[nearest]
            return _Learned(learned.cost * 2.0 ** (at - nearest), learned.tokens)
        return self._learned[min(self._learned)] if self._learned else None


def _octave(context: int) -> int:
    return (context // _CONTEXT).bit_length()


def _power_of_two(wanted: float) -> int:
    return 1 << max(0, int(wanted).bit_length() - 1)
