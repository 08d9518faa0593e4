"""Sets of byte ranges: which parts of a file are present or missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class ByteRanges:
    """A set of offsets, stored as sorted ranges `[start, end)` that neither touch nor overlap.

    Meant for few ranges (about one for each connection): operations are linear in their number.
    """

    __slots__ = ("_ranges",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []
        for start, end in ranges:
            self.add(start, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteRanges) and self._ranges == other._ranges

    def __hash__(self) -> int:
        raise TypeError("ByteRanges is mutable")

    def __repr__(self) -> str:
        return f"ByteRanges({self._ranges})"

    @property
    def total(self) -> int:
        """Number of bytes in all ranges."""
        return sum(end - start for start, end in self._ranges)

    @property
    def prefix_end(self) -> int:
        """End of the contiguous range from 0, which is the first missing offset."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    def add(self, start: int, end: int) -> int:
        """Add a range; return how many of its bytes were missing."""
        if start >= end:
            return 0
        ranges = self._ranges
        before = 0
        while before < len(ranges) and ranges[before][1] < start:
            before += 1
        after = before
        low, high, known = start, end, 0
        while after < len(ranges) and ranges[after][0] <= end:
            first, last = ranges[after]
            known += max(0, min(last, end) - max(first, start))
            low, high = min(low, first), max(high, last)
            after += 1
        ranges[before:after] = [(low, high)]
        return end - start - known

    def remove(self, start: int, end: int) -> None:
        """Remove a range; bytes that are not in the set are ignored."""
        if start >= end:
            return
        left: list[tuple[int, int]] = []
        for first, last in self._ranges:
            if first < start:
                left.append((first, min(last, start)))
            if last > end:
                left.append((max(first, end), last))
        self._ranges = left

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the missing ranges of `[start, end)`, in order."""
        found: list[tuple[int, int]] = []
        for first, last in self._ranges:
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
        """Remove all bytes from offset `size` on."""
        self._ranges = [(first, min(last, size)) for first, last in self._ranges if first < size]
