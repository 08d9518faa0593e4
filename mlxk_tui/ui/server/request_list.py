"""The list of requests, one line each: open requests first, then finished ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.widgets import Static

from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.ui.server import request_text
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, line, pad

_WIDE = 96
"""Cells from which all columns fit."""
_PADDING = 1
"""Cells before the scrollbar."""
_STATUS = 12
"""Cells of the longest status."""


@dataclass(frozen=True)
class Columns:
    """Widths of the columns in cells; 0 if a column does not fit."""

    client: int
    route: int
    model: int
    status: int = 7
    tokens: int = 6
    rate: int = 6
    first: int = 7
    gap: int = 2


def columns(width: int) -> Columns:
    """Return the columns of a line of `width` cells."""
    wide = width >= _WIDE
    width -= 2 + 8 + _PADDING  # glyph and time
    if wide:
        rest = width - (15 + _STATUS + 6 + 6 + 6 + 7) - 8 * 2
        route = min(22, max(16, rest // 2))
        return Columns(15, route, rest - route, status=_STATUS)
    rest = width - (7 + 6 + 6 + 6 + 7) - 7
    route = min(11, rest // 2)
    return Columns(0, route, rest - route, gap=1)


class RequestList(RowList):
    """One request per row."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._entries: dict[str, RequestEntry] = {}

    def show(self, entries: Sequence[RequestEntry]) -> None:
        self._entries = {str(entry.number): entry for entry in entries}
        keys = list(self._entries)
        if keys != self.keys:
            self.set_rows([ListRow(key) for key in keys])
        else:
            self.refresh()

    def entry(self, key: str | None) -> RequestEntry | None:
        return self._entries.get(key or "")

    @property
    def selected(self) -> RequestEntry | None:
        return self.entry(self.cursor_key)

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        del number
        entry = self._entries[row.key]
        col = columns(width)
        mark, token = request_text.glyph(entry)
        style = "" if entry.live else "muted"
        status = "" if token in {"good", "accent"} else token
        gap = (" " * col.gap, "")
        parts: list[Part] = [(f"{mark} ", token), (request_text.clock_time(entry.started_at), "muted"), gap]
        if col.client:
            parts += [(pad(printable(entry.client), col.client), style), gap]
        route = printable(entry.route) if col.client else request_text.short_route(entry.route)
        parts += [
            (pad(route, col.route), "strong" if entry.live else ""),
            gap,
            (pad(request_text.model_name(entry) or "–", col.model), style),
            gap,
            (pad(request_text.status_label(entry, col.status), col.status), status),
            gap,
            (pad(request_text.count_text(entry.prompt_tokens), col.tokens, right=True), style),
            gap,
            (pad(request_text.count_text(entry.completion_tokens), col.tokens, right=True), style),
            gap,
            (pad(request_text.rate_text(entry.rate), col.rate, right=True), ""),
            gap,
            (pad(request_text.seconds_text(entry.ttft_s), col.first, right=True), style),
        ]
        return parts


class RequestHeader(Static):
    """The column titles."""

    def on_resize(self) -> None:
        # The list below it has a cell for its cursor mark and one for its scrollbar.
        col = columns(self.size.width - 2)
        gap = " " * col.gap
        names = [pad("  Time", 10)]
        names += [pad("Client", col.client)] if col.client else []
        names += [
            pad("Route", col.route),
            pad("Model", col.model),
            pad("Status", col.status),
            pad("In", col.tokens, right=True),
            pad("Out", col.tokens, right=True),
            pad("tok/s", col.rate, right=True),
            pad("First", col.first, right=True),
        ]
        self.update(line([(" " + gap.join(names), "$muted")]), layout=False)
