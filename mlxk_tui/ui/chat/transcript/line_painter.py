"""Lines of the transcript as they appear on the screen: cursor mark, background, and text selection."""

from __future__ import annotations

from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

_MAX_CACHED = 2_000


@dataclass(frozen=True)
class LineSelection:
    """The selected part of a line."""

    span: tuple[int, int] | None
    """First and last character, -1 for the end of the line; None if nothing of the line is selected."""
    style: Style


@dataclass(frozen=True)
class _Painted:
    source: Strip
    width: int
    on_cursor: bool
    strip: Strip


class LinePainter:
    """Paints lines and caches them: creating a strip is slow."""

    def __init__(self) -> None:
        self._cache: dict[int, _Painted] = {}

    def clear_cache(self) -> None:
        """Discard all painted lines, such as after a change of the theme."""
        self._cache.clear()

    def paint(
        self,
        number: int,
        source: Strip,
        *,
        width: int,
        plain: Style,
        accent: Style,
        on_cursor: bool,
        selection: LineSelection | None,
    ) -> Strip:
        """Return a line of the screen.

        Args:
            number: index of the line in the transcript.
            source: content of the line.
            width: cells of the screen.
            plain: the default style; after a change of it, call `clear_cache`.
            accent: the style of the cursor mark; after a change of it, call `clear_cache`.
            on_cursor: whether the line has the cursor mark.
            selection: the text selection; None if nothing is selected.
        """
        cached = self._cache.get(number) if selection is None else None
        if cached and (cached.source is source and cached.width == width and cached.on_cursor is on_cursor):
            return cached.strip
        strip = Strip([Segment("▌ " if on_cursor else "  ", accent), *source]).apply_style(plain)
        if selection is not None:
            strip = _select(strip, selection)
        strip = strip.adjust_cell_length(width, plain).apply_offsets(0, number)
        if selection is None:
            if len(self._cache) > _MAX_CACHED:
                self._cache.clear()
            self._cache[number] = _Painted(source, width, on_cursor, strip)
        return strip


def _select(strip: Strip, selection: LineSelection) -> Strip:
    if selection.span is None:
        return strip
    start, end = selection.span
    text = strip.text
    end = len(text) if end == -1 else end
    cells = [Strip([Segment(text[:place])]).cell_length for place in (start, end)]
    before, middle, after = strip.divide([*cells, strip.cell_length])[:3] if text else (strip, strip, strip)
    painted = [Segment(part.text, (part.style or Style.null()) + selection.style) for part in middle]
    return Strip([*before, *painted, *after])
