"""Lines of the conversation as they stand on the screen: marker, background, and what the mouse marked."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

_MOST_KEPT = 2_000


@dataclass(frozen=True)
class Marked:
    """What the mouse marked of a line."""

    span: tuple[int, int] | None
    """First and last character, -1 for the end of the line; None where nothing of the line is marked."""
    style: Style


@dataclass(frozen=True)
class _Painted:
    source: Strip
    width: int
    on_cursor: bool
    strip: Strip


class LinePainter:
    """Paints lines, and keeps what it painted: making a strip takes time."""

    def __init__(self) -> None:
        self._kept: dict[int, _Painted] = {}

    def forget(self) -> None:
        """Paint all of them again, as in another theme."""
        self._kept.clear()

    def paint(
        self,
        number: int,
        source: Strip,
        *,
        width: int,
        plain: Style,
        accent: Style,
        on_cursor: bool,
        marked: Marked | None,
    ) -> Strip:
        """Return a line of the screen.

        Args:
            number: the line's place in the whole conversation.
            source: what stands in it.
            width: cells of the screen.
            plain: text and background where the line says nothing else; another one needs `forget`.
            accent: the style of the cursor's mark; another one needs `forget`.
            on_cursor: whether the mark is there.
            marked: what the mouse marked; None where nothing is.
        """
        kept = self._kept.get(number) if marked is None else None
        if kept and (kept.source is source and kept.width == width and kept.on_cursor is on_cursor):
            return kept.strip
        strip = Strip([Segment("▌ " if on_cursor else "  ", accent), *source]).apply_style(plain)
        if marked is not None:
            strip = _mark(strip, marked)
        strip = strip.adjust_cell_length(width, plain).apply_offsets(0, number)
        if marked is None:
            if len(self._kept) > _MOST_KEPT:
                self._kept.clear()
            self._kept[number] = _Painted(source, width, on_cursor, strip)
        return strip


def _mark(strip: Strip, marked: Marked) -> Strip:
    if marked.span is None:
        return strip
    start, end = marked.span
    text = strip.text
    end = len(text) if end == -1 else end
    cells = [Strip([Segment(text[:place])]).cell_length for place in (start, end)]
    before, middle, after = strip.divide([*cells, strip.cell_length])[:3] if text else (strip, strip, strip)
    painted = [Segment(part.text, (part.style or Style.null()) + marked.style) for part in middle]
    return Strip([*before, *painted, *after])
