"""A sparkline of block characters, one per value."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int, rows: int = 1) -> list[str]:
    """Return the latest `width` values as columns of blocks, `rows` lines high, right-aligned.

    The highest value fills the height; any value above zero shows at least the lowest block.
    """
    shown = list(values)[-width:]
    peak = max(shown, default=0)
    levels = rows * 8
    heights = [max(1, round(value / peak * levels)) if value > 0 and peak > 0 else 0 for value in shown]
    lines = []
    for row in range(rows - 1, -1, -1):
        cells = "".join(_BLOCKS[max(0, min(8, height - row * 8))] for height in heights)
        lines.append(" " * (width - len(shown)) + cells)
    return lines
