"""The upper panel: the switch, the address, who may call, the model, and what the last minute was like."""

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
_ROOMY = 96
_LEAST = 10
"""Cells that a text keeps beside its tail."""


@dataclass(frozen=True)
class Plot:
    """A figure and its last minute."""

    title: str
    now: str
    below: str
    values: Sequence[float]


@dataclass(frozen=True)
class Fact:
    """A line of the panel."""

    label: str
    text: str
    """Cut where there is no room for all of it."""
    style: str = ""
    """A theme token."""
    tail: str = ""
    """Stands behind the text, whole."""
    shorter: Sequence[str] = ()
    """What stands there instead where the tail leaves the text no room, the longest first."""

    def tail_for(self, room: int) -> str:
        """Return the longest tail that leaves enough of the text; the shortest where none does."""
        tails = (self.tail, *self.shorter)
        least = min(cell_len(self.text), _LEAST)
        return next((tail for tail in tails if room - cell_len(tail) >= least), tails[-1])


@dataclass(frozen=True)
class ServerStatus:
    """What the panel shows; every text is safe."""

    switch: Part
    """Glyph and word, and a theme token."""
    address: str = ""
    facts: Sequence[Fact] = ()
    plots: Sequence[Plot] = field(default=())


class StatusPanel(Static):
    """Four lines; the switch and the address can be clicked."""

    ALLOW_SELECT = False

    @dataclass
    class Clicked(Message):
        """Something was clicked."""

        what: str
        """`switch` or `address`."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id, markup=False)
        self._status = ServerStatus(("", ""))

    def show(self, status: ServerStatus) -> None:
        """Show a status."""
        self._status = status
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()

    def _draw(self) -> None:
        width = self.size.width
        if width <= 0:
            return
        status = self._status
        plots = _plots(status.plots, _WIDE_PLOT if width >= _ROOMY else _NARROW_PLOT)
        taken = sum(cell_len(text) for text, _ in plots[0]) if plots else 0
        left = width - taken - (_GAP if taken else 0)
        rows = [self._first(left)]
        room = left - _LABEL
        for fact in status.facts:
            tail = fact.tail_for(room)
            text = cut(fact.text, room - cell_len(tail))
            rows.append([(pad(fact.label, _LABEL), "$muted"), (text, fact.style), (tail, "$muted")])
        for number, row in enumerate(rows[: len(plots)]):
            used = sum(cell_len(text) for text, _ in row)
            row += [(" " * (left - used + (_GAP if taken else 0)), ""), *plots[number]]
        self.update(lines(rows), layout=False)

    def _first(self, width: int) -> list[Part]:
        word, token = self._status.switch
        head = pad(word, max(_LABEL, cell_len(word) + 2))
        return [(head, f"{token} bold"), (cut(self._status.address, width - cell_len(head)), "$strong")]

    def on_click(self, event: events.Click) -> None:
        """Switch, or copy the address."""
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
                [(pad(plot.below, cells, right=True), "$faint")],
            ),
            strict=True,
        ):
            row += [*gap, *parts]
    return rows
