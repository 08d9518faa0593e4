"""The status panel: switch, address, model, API keys, CORS, and sparklines of the last minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual.widgets import Static

from mlxk_tui.ui.widgets.sparkline import sparkline
from mlxk_tui.ui.widgets.text import Part, cut, lines, pad

_LABEL = 9
_GAP = 2
_WIDE_PLOT, _NARROW_PLOT = 30, 13
_WIDE = 96
_MIN_TEXT = 10
"""Cells that a text needs beside its detail."""


@dataclass(frozen=True)
class Plot:
    """A number and its sparkline of the last minute."""

    title: str
    now: str
    caption: str
    values: Sequence[float]


@dataclass(frozen=True)
class Fact:
    """A line of the panel."""

    label: str
    text: str
    """Truncated if it does not fit."""
    style: str = ""
    """A theme token."""
    detail: str = ""
    """Follows the text, never truncated."""
    shorter_details: Sequence[str] = ()
    """Alternatives if the detail leaves too little room, the longest first."""

    def detail_for(self, room: int) -> str:
        """Return the longest detail that leaves enough room for the text, else the shortest."""
        details = (self.detail, *self.shorter_details)
        needed = min(cell_len(self.text), _MIN_TEXT)
        return next((detail for detail in details if room - cell_len(detail) >= needed), details[-1])


@dataclass(frozen=True)
class ServerStatus:
    """The content of the panel; all texts are safe to show."""

    switch: Part
    """Glyph and label, and a theme token."""
    address: str = ""
    facts: Sequence[Fact] = ()
    plots: Sequence[Plot] = field(default=())


class StatusPanel(Static):
    """Four lines of status; switch and address are clickable."""

    ALLOW_SELECT = False

    @dataclass
    class Clicked(Message):
        """A part was clicked."""

        part: str
        """`switch` or `address`."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id, markup=False)
        self._status = ServerStatus(("", ""))

    def show(self, status: ServerStatus) -> None:
        self._status = status
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        width = self.size.width
        if width <= 0:
            return
        status = self._status
        plots = _plots(status.plots, _WIDE_PLOT if width >= _WIDE else _NARROW_PLOT)
        taken = sum(cell_len(text) for text, _ in plots[0]) if plots else 0
        left = width - taken - (_GAP if taken else 0)
        rows = [self._first(left)]
        room = left - _LABEL
        for fact in status.facts:
            detail = fact.detail_for(room)
            text = cut(fact.text, room - cell_len(detail))
            rows.append([(pad(fact.label, _LABEL), "$muted"), (text, fact.style), (detail, "$muted")])
        for number, row in enumerate(rows[: len(plots)]):
            used = sum(cell_len(text) for text, _ in row)
            row += [(" " * (left - used + (_GAP if taken else 0)), ""), *plots[number]]
        self.update(lines(rows), layout=False)

    def _first(self, width: int) -> list[Part]:
        word, token = self._status.switch
        head = pad(word, max(_LABEL, cell_len(word) + 2))
        return [(head, f"{token} bold"), (cut(self._status.address, width - cell_len(head)), "$strong")]

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or offset.y != 0:
            return
        head = max(_LABEL, cell_len(self._status.switch[0]) + 2)
        if offset.x < head:
            self.post_message(self.Clicked("switch"))
        elif offset.x < head + cell_len(self._status.address):
            self.post_message(self.Clicked("address"))


def _plots(plots: Sequence[Plot], cells: int) -> list[list[Part]]:
    """Return four lines with the plots side by side."""
    rows: list[list[Part]] = [[], [], [], []] if plots else []
    for number, plot in enumerate(plots):
        gap: list[Part] = [(" " * _GAP, "")] if number else []
        title = pad(plot.title, cells - cell_len(plot.now))
        drawn = sparkline(plot.values, cells, 2)
        for row, parts in zip(
            rows,
            (
                [(title, "$muted"), (plot.now, "$strong")],
                [(drawn[0], "$accent")],
                [(drawn[1], "$accent")],
                [(pad(plot.caption, cells, right=True), "$faint")],
            ),
            strict=True,
        ):
            row += [*gap, *parts]
    return rows
