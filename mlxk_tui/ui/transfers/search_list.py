"""The results of the hub search, one line each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType

from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, cut, pad, short_age


@dataclass(frozen=True)
class SearchHit:
    """A model on the hub."""

    name: str
    """Full name on the hub."""
    size_bytes: int | None = None
    downloads: int | None = None
    modified: str | None = None
    """ISO 8601, UTC."""
    gated: bool = False
    cached: bool = False
    mlx: bool = True
    note: str = ""
    """Shown in place of downloads and date."""


def count_label(count: int | None) -> str:
    """Return a count in at most five cells: `980`, `12.4k`, `1.2M`."""
    if count is None:
        return "–"
    if count < 1000:
        return str(count)
    for limit, unit in ((1e6, "k"), (1e9, "M"), (1e12, "G")):
        if count < limit:
            value = count / limit * 1000
            return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return "–"


_SIZE, _COUNT, _AGE, _STATE, _GAP, _NOTE = 7, 5, 4, 6, 2, 24


class SearchList(RowList):
    """One model per row, with its state: queued, cached or gated."""

    BINDING_GROUP_TITLE = "Hub search: results"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "enter", "choose", "Details", key_display="⏎", id="search.look",
            tooltip="Show download size and memory fit, and pull the model",
        ),
    ]  # fmt: skip

    def __init__(self, *, now: Callable[[], datetime], id: str | None = None) -> None:  # noqa: A002 - as Textual has it
        super().__init__(id=id)
        self._now = now
        self._found: dict[str, SearchHit] = {}
        self._queued: frozenset[str] = frozenset()

    def show(self, found: Sequence[SearchHit], queued: Collection[str] = ()) -> None:
        """Show models; `queued` are the names in the transfer queue, in lower case."""
        self._found = {model.name: model for model in found}
        self._queued = frozenset(queued)
        self.set_rows([ListRow(model.name) for model in self._found.values()])

    def model(self, key: str) -> SearchHit | None:
        return self._found.get(key)

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        del number
        model = self._found[row.key]
        tail: list[Part] = []
        if model.note:
            state, style = self._state(model)
            tail = [
                (" " * _GAP + pad(_size(model.size_bytes), _SIZE, right=True), ""),
                (" " * _GAP + pad(state or model.note, _NOTE), style or "muted"),
            ]
        else:
            tail = [
                (" " * _GAP + pad(self._state(model)[0], _STATE), self._state(model)[1]),
                (" " * _GAP + pad(_size(model.size_bytes), _SIZE, right=True), ""),
                (" " * _GAP + pad(count_label(model.downloads), _COUNT, right=True), "muted"),
                (" " * _GAP + pad(short_age(model.modified, self._now()), _AGE, right=True), "muted"),
            ]
        room = max(8, width - 1 - sum(cell_len(text) for text, _ in tail))
        return [*_name(model, room), *tail]

    def _state(self, model: SearchHit) -> Part:
        if model.name.casefold() in self._queued:
            return "queued", "accent"
        if model.cached:
            return "cached", "good"
        return ("gated", "attention") if model.gated else ("", "")


def titles(width: int) -> list[Part]:
    """Return the column titles, in the `width` of a row."""
    tail = " " * (_GAP + _STATE + _GAP) + pad("Size", _SIZE, right=True)
    tail += " " * _GAP + pad("Pulls", _COUNT, right=True) + " " * _GAP + pad("Age", _AGE, right=True)
    return [(pad(" Name", max(0, width - 1 - cell_len(tail))) + tail, "$muted")]


def _size(count: int | None) -> str:
    return format_size(count) if count is not None else "–"


def _name(model: SearchHit, room: int) -> list[Part]:
    org, slash, short = printable(model.name).rpartition("/")
    if cell_len(org + slash + short) > room:
        text = cut(org + slash + short, room)
        return [(pad(text, room), "strong" if model.mlx else "")]
    rest = room - cell_len(org + slash + short)
    return [(org + slash, "muted"), (short + " " * rest, "strong" if model.mlx else "")]
