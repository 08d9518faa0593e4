"""The table of models: columns, sorting, marks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from mlxk_tui.ops.core.text import age, size
from mlxk_tui.services.library import DEFAULT_ORG, Entry
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, cut, pad, quant_word, short_age, type_word

_GAP = 2
_MARK = 2
_MIN_NAME = 20
_ROOMY_NAME = 24
"""With less room for the name the columns that have a short form take it."""


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    id: str
    title: str
    width: int
    """Cells; 0 for the one that takes what is left."""
    sort: Callable[[Entry], Any]
    right: bool = False
    """Whether values stand flush right."""
    largest_first: bool = False
    """Which way the first press sorts."""
    spare: int = 0
    """Columns with a higher number go first when the table is narrow; 0 never goes."""
    short: tuple[str, int] | None = None
    """Title and width of the short form, where there is one."""


def _name(entry: Entry) -> tuple[str, str]:
    return (entry.short.casefold(), entry.org.casefold())


def _quant(entry: Entry) -> tuple[int, str]:
    quantization = entry.model.quantization
    return (quantization.bits if quantization else 99, entry.model.framework.value)


COLUMNS = (
    Column("name", "Name", 0, _name),
    Column("org", "Organisation", 16, lambda entry: (entry.org.casefold(), entry.short.casefold()), spare=4),
    Column("type", "Type", 5, lambda entry: entry.model.model_type.value, spare=2),
    Column("quant", "Quant", 5, _quant, spare=1),
    Column("size", "Size", 6, lambda entry: entry.model.disk_bytes, right=True, largest_first=True),
    Column(
        "modified",
        "Modified",
        10,
        lambda entry: entry.model.last_modified,
        right=True,
        largest_first=True,
        spare=3,
        short=("Age", 5),
    ),
    Column("state", "✓", 1, lambda entry: entry.state.rank),
)
"""The columns, left to right."""
COLUMN_IDS = tuple(column.id for column in COLUMNS)


def layout(width: int) -> list[tuple[Column, int]]:
    """Return the columns that fit into `width` cells, with their widths."""
    chosen = list(COLUMNS)

    def left() -> int:
        return width - _MARK - sum(_GAP + column.width for column in chosen if column.width)

    def drop() -> None:
        chosen.remove(max(chosen, key=lambda column: column.spare))

    if left() < _ROOMY_NAME:
        drop()
    if left() < _ROOMY_NAME:
        chosen = [
            replace(column, title=column.short[0], width=column.short[1]) if column.short else column
            for column in chosen
        ]
    while left() < _MIN_NAME and any(column.spare for column in chosen):
        drop()
    name = max(4, left())
    return [(column, column.width or name) for column in chosen]


def sorted_entries(entries: Iterable[Entry], column_id: str, *, reverse: bool) -> list[Entry]:
    """Return entries in the order of a column; equal ones by name, whichever way the column goes."""
    column = next(column for column in COLUMNS if column.id == column_id)
    by_name = sorted(entries, key=_name)
    return (
        by_name if column_id == "name" and not reverse else sorted(by_name, key=column.sort, reverse=reverse)
    )


class ModelTable(RowList):
    """The rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space",
            "mark",
            "Mark",
            key_display="spc",
            id="table.mark",
            tooltip="Mark the model, to act on several at once",
        ),
        Binding("ctrl+a", "mark_all", "Mark all shown", show=False, id="table.mark_all"),
    ]

    @dataclass
    class Marked(Message):
        """The set of marked models changed."""

        marks: frozenset[str]

    def __init__(self, *, now: Callable[[], datetime], id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._now = now
        self._entries: dict[str, Entry] = {}
        self.marks: set[str] = set()

    def show(self, entries: Sequence[Entry]) -> None:
        """Show entries in the given order."""
        self._entries = {entry.key: entry for entry in entries}
        self.set_rows([ListRow(entry.key) for entry in entries])

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        """Draw one model."""
        del number
        entry = self._entries[row.key]
        parts: list[Part] = [("◆ " if row.key in self.marks else "  ", "accent")]
        columns = layout(width - 1)
        for column, cells in columns:
            if column.id == "name":
                parts.extend(name_parts(entry, cells, org=not any(other.id == "org" for other, _ in columns)))
                continue
            text, token = self._cell(column, entry)
            parts.append((" " * _GAP + pad(text, cells, right=column.right), token))
        return parts

    def _cell(self, column: Column, entry: Entry) -> Part:
        model = entry.model
        if column.id == "org":
            return entry.org, "faint" if entry.org == DEFAULT_ORG else "muted"
        if column.id == "type":
            return type_word(model), "muted"
        if column.id == "quant":
            return quant_word(model), "muted"
        if column.id == "size":
            return size(model.disk_bytes), ""
        if column.id == "modified":
            if column.width < 10:
                return short_age(model.last_modified, self._now()), "muted"
            return age(model.last_modified, self._now()), "muted"
        return entry.state.glyph, entry.state.token

    def clicked(self, row: ListRow, event: events.Click) -> None:
        """Mark with the mouse: a click left of the name, or with ctrl held."""
        if event.x <= _MARK or event.ctrl:
            self.toggle(row.key)

    def toggle(self, key: str) -> None:
        """Mark a row, or take its mark away."""
        self.marks.symmetric_difference_update({key})
        self._marks_changed()

    def clear_marks(self) -> None:
        """Take all marks away."""
        self.marks.clear()
        self._marks_changed()

    def forget(self, keys: Iterable[str]) -> None:
        """Take the marks of rows that are gone away."""
        if self.marks.intersection(keys):
            self.marks.difference_update(keys)
            self._marks_changed()

    def _marks_changed(self) -> None:
        self.refresh()
        self.post_message(self.Marked(frozenset(self.marks)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Dim marking where there is nothing to mark."""
        del parameters
        return None if action in {"mark", "mark_all"} and not self._entries else True

    def action_mark(self) -> None:
        """Mark the row under the cursor and go on to the next."""
        if (key := self.cursor_key) is not None:
            self.toggle(key)
            self.action_cursor_move(1)

    def action_mark_all(self) -> None:
        """Mark every row that is shown; when all are, none."""
        shown = set(self.keys)
        self.marks = self.marks - shown if shown <= self.marks else self.marks | shown
        self._marks_changed()


def name_parts(entry: Entry, cells: int, *, org: bool) -> list[Part]:
    """Return a name in exactly `cells`: the model's own, then flush right an unusual organisation, dimmed."""
    short = cut(entry.short, cells)
    left = cells - cell_len(short)
    parts: list[Part] = [(short, "strong")]
    # Whole or not at all: rests of it are noise.
    if org and entry.org not in {"", DEFAULT_ORG} and left >= 2 + cell_len(entry.org):
        return [*parts, (" " * (left - cell_len(entry.org)), ""), (entry.org, "faint")]
    return [*parts, (" " * left, "")]


class TableHeader(Widget):
    """The column titles; a click sorts."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"title", "title-sorted"}

    @dataclass
    class Clicked(Message):
        """A title was clicked."""

        column: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._sorted = ("name", False)

    def show_sort(self, column: str, *, reverse: bool) -> None:
        """Put the arrow on a column."""
        self._sorted = (column, reverse)
        self.refresh()

    def _columns(self) -> list[tuple[Column, int]]:
        # One cell for the cursor bar on the left, one of air and one for the scrollbar on the right.
        return layout(self.size.width - 3)

    @property
    def shown(self) -> list[str]:
        """Ids of the columns that are shown, left to right."""
        return [column.id for column, _ in self._columns()]

    def _titles(self) -> list[tuple[Column, str]]:
        """Return each column with its title and the gap behind it, which an arrow may reach into."""
        column_id, reverse = self._sorted
        titles = []
        for column, cells in self._columns():
            title = column.title
            if column.id == column_id:
                title += " ↓" if reverse else " ↑"
            if column.right:
                titles.append((column, pad(title, cells, right=True) + " " * _GAP))
            else:
                titles.append((column, pad(title, cells + _GAP)))
        return titles

    def render_line(self, y: int) -> Strip:
        """Draw the titles."""
        plain, active = self.get_component_rich_style("title"), self.get_component_rich_style("title-sorted")
        segments = [Segment(" " * (1 + _MARK), plain)]
        for column, title in self._titles():
            style = active if column.id == self._sorted[0] else plain
            segments.append(Segment(title, style))
        return Strip(segments).adjust_cell_length(self.size.width, plain)

    def on_click(self, event: events.Click) -> None:
        """Sort by the column under the mouse."""
        left = 1 + _MARK
        for column, title in self._titles():
            right = left + cell_len(title)
            if left <= event.x < right:
                self.post_message(self.Clicked(column.id))
                return
            left = right
