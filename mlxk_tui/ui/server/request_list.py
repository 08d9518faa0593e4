"""The list of requests, a line each: what is being answered now, then what was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.widgets import Static

from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.ui.server import request_text as said
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, line, pad

_ROOMY = 96
"""From this many cells on every column has its place."""
_AIR = 1
"""Cells before the scrollbar."""


@dataclass(frozen=True)
class Columns:
    """How wide each column is, in cells; 0 where there is no room for it."""

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
    width -= 2 + 8 + _AIR  # glyph and time
    if width + 2 + 8 + _AIR >= _ROOMY:
        rest = width - (15 + 7 + 6 + 6 + 6 + 7) - 8 * 2
        route = min(22, max(16, rest // 2))
        return Columns(15, route, rest - route)
    rest = width - (7 + 6 + 6 + 6 + 7) - 7
    route = min(11, rest // 2)
    return Columns(0, route, rest - route, gap=1)


class RequestList(RowList):
    """The rows."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._entries: dict[str, RequestEntry] = {}

    def show(self, entries: Sequence[RequestEntry]) -> None:
        """Show these; only rows that are on screen cost anything."""
        self._entries = {str(entry.number): entry for entry in entries}
        keys = list(self._entries)
        if keys != self.keys:
            self.set_rows([ListRow(key) for key in keys])
        else:
            self.refresh()

    def entry(self, key: str | None) -> RequestEntry | None:
        """Return the request of a row."""
        return self._entries.get(key or "")

    @property
    def selected(self) -> RequestEntry | None:
        """The request under the cursor."""
        return self.entry(self.cursor_key)

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        """Draw a request."""
        del number
        entry = self._entries[row.key]
        col = columns(width)
        mark, token = said.glyph(entry)
        quiet = "" if entry.live else "muted"
        status = "" if token in {"good", "accent"} else token
        gap = (" " * col.gap, "")
        parts: list[Part] = [(f"{mark} ", token), (said.clock_time(entry.started_at), "muted"), gap]
        if col.client:
            parts += [(pad(printable(entry.client), col.client), quiet), gap]
        route = printable(entry.route) if col.client else said.short_route(entry.route)
        parts += [
            (pad(route, col.route), "strong" if entry.live else ""),
            gap,
            (pad(said.model_name(entry) or "–", col.model), quiet),
            gap,
            (pad(said.status_word(entry), col.status), status),
            gap,
            (pad(said.count_text(entry.prompt_tokens), col.tokens, right=True), quiet),
            gap,
            (pad(said.count_text(entry.completion_tokens), col.tokens, right=True), quiet),
            gap,
            (pad(said.rate_text(entry.rate), col.rate, right=True), ""),
            gap,
            (pad(said.seconds_text(entry.ttft_s), col.first, right=True), quiet),
        ]
        return parts


class RequestHeading(Static):
    """The names of the columns."""

    def on_resize(self) -> None:
        """Draw for the new width."""
        # The list beside it keeps a cell for its marker and one for its scrollbar.
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
