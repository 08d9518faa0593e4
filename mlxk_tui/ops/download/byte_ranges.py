"""Sets of byte ranges: what of a file is there, and what is still missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Spans:
    """A set of offsets, kept as sorted ranges `[start, end)` that neither touch nor overlap.

    Made for few ranges (one for each connection), so every step may look at all of them.
    """

    __slots__ = ("_spans",)

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans: list[tuple[int, int]] = []
        for start, end in spans:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and self._spans == other._spans

    def __hash__(self) -> int:
        raise TypeError("Spans change")

    def __repr__(self) -> str:
        return f"Spans({self._spans})"

    @property
    def total(self) -> int:
        """Bytes in all ranges."""
        return sum(end - start for start, end in self._spans)

    @property
    def front(self) -> int:
        """The first offset that is missing."""
        return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    def add(self, start: int, end: int) -> int:
        """Add a range and return how many of its bytes were missing."""
        if start >= end:
            return 0
        spans = self._spans
        before = 0
        while before < len(spans) and spans[before][1] < start:
            before += 1
        after = before
        low, high, had = start, end, 0
        while after < len(spans) and spans[after][0] <= end:
            first, last = spans[after]
            had += max(0, min(last, end) - max(first, start))
            low, high = min(low, first), max(high, last)
            after += 1
        spans[before:after] = [(low, high)]
        return end - start - had

    def remove(self, start: int, end: int) -> None:
        """Take a range out."""
        if start >= end:
            return
        left: list[tuple[int, int]] = []
        for first, last in self._spans:
            if first < start:
                left.append((first, min(last, start)))
            if last > end:
                left.append((max(first, end), last))
        self._spans = left

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges of `[start, end)` that are missing, in order."""
        found: list[tuple[int, int]] = []
        for first, last in self._spans:
            if last <= start:
                continue
            if first >= end:
                break
            if first > start:
                found.append((start, first))
            start = last
        if start < end:
            found.append((start, end))
        return found

    def clip(self, size: int) -> None:
        """Drop everything from offset `size` on."""
        self._spans = [(first, min(last, size)) for first, last in self._spans if first < size]
