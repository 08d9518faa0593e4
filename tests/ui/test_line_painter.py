"""Lines of the conversation are painted once, and again only after a change."""

from __future__ import annotations

import pytest
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from mlxk_tui.ui.chat.transcript.line_painter import LinePainter, LineSelection

PLAIN, ACCENT, MARK = Style(color="white"), Style(color="red"), Style(reverse=True)


def paint(
    painter: LinePainter,
    source: Strip,
    *,
    width: int = 12,
    on_cursor: bool = False,
    selection: LineSelection | None = None,
) -> Strip:
    return painter.paint(
        3, source, width=width, plain=PLAIN, accent=ACCENT, on_cursor=on_cursor, selection=selection
    )


def test_line_is_painted_once() -> None:
    painter, source = LinePainter(), Strip([Segment("text")])
    first = paint(painter, source)
    assert (first.text, first.cell_length) == ("  text      ", 12)
    assert paint(painter, source) is first
    painter.clear_cache()
    assert paint(painter, source) is not first


def test_changed_text_width_or_cursor_is_painted_again() -> None:
    painter, source = LinePainter(), Strip([Segment("text")])
    paint(painter, source)
    assert paint(painter, source, on_cursor=True).text == "▌ text      "
    assert paint(painter, source, width=8).text == "  text  "
    assert paint(painter, Strip([Segment("more")]), width=8).text == "  more  "


@pytest.mark.parametrize(("span", "expected"), [((2, 4), "日x"), ((3, -1), "xt"), (None, ""), ((0, 1), " ")])
def test_only_marked_text_is_highlighted(span: tuple[int, int] | None, expected: str) -> None:
    painter, source = LinePainter(), Strip([Segment("日xt")])  # the first one takes two cells
    plain = paint(painter, source)
    strip = paint(painter, source, selection=LineSelection(span, MARK))
    assert "".join(part.text for part in strip if part.style and part.style.reverse) == expected
    assert strip.text == plain.text
    assert paint(painter, source) is plain
