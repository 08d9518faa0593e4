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

from mlxk_tui.ops.core.text import age, format_size
from mlxk_tui.services.library import DEFAULT_ORG, Entry
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import UPDATE_GLYPH, Part, cut, pad, quant_label, short_age, type_label

_GAP = 2
_MARK = 2
_MIN_NAME = 20
_COMFORTABLE_NAME = 24
"""With fewer cells for the name, columns that have a compact form use it."""


@dataclass(frozen=True)
class Column:
    """A column: its title, width and sort key."""

    id: str
    title: str
    width: int
    """Cells; 0 for the name, which takes the remaining width."""
    sort: Callable[[Entry], Any]
    right: bool = False
    """Whether values are right-aligned."""
    descending_first: bool = False
    """Whether the first press sorts in descending order."""
    drop_order: int = 0
    """In a narrow table the column with the highest number is dropped first; 0 is never dropped."""
    compact: tuple[str, int] | None = None
    """Title and width of the compact form, if there is one."""


def _name(entry: Entry) -> tuple[str, str]:
    return (entry.short.casefold(), entry.org.casefold())


def _quant(entry: Entry) -> tuple[int, str]:
    quantization = entry.model.quantization
    return (quantization.bits if quantization else 99, entry.model.framework.value)


COLUMNS = (
    Column("name", "Name", 0, _name),
    Column(
        "org", "Organization", 16, lambda entry: (entry.org.casefold(), entry.short.casefold()), drop_order=4
    ),
    Column("type", "Type", 5, lambda entry: entry.model.model_type.value, drop_order=2),
    Column("quant", "Quant", 5, _quant, drop_order=1),
    Column("size", "Size", 7, lambda entry: entry.model.disk_bytes, right=True, descending_first=True),
    Column(
        "modified",
        "Modified",
        10,
        lambda entry: entry.model.last_modified,
        right=True,
        descending_first=True,
        drop_order=3,
        compact=("Age", 5),
    ),
    Column("state", "✓", 1, lambda entry: entry.state.rank),
)
"""The columns, left to right."""
COLUMN_IDS = tuple(column.id for column in COLUMNS)


def layout(width: int) -> list[tuple[Column, int]]:
    """Return the columns that fit into `width` cells, with their widths."""
    columns = list(COLUMNS)

    def left() -> int:
        return width - _MARK - sum(_GAP + column.width for column in columns if column.width)

    def drop() -> None:
        columns.remove(max(columns, key=lambda column: column.drop_order))

    if left() < _COMFORTABLE_NAME:
        drop()
    if left() < _COMFORTABLE_NAME:
        columns = [
            replace(column, title=column.compact[0], width=column.compact[1]) if column.compact else column
            for column in columns
        ]
    while left() < _MIN_NAME and any(column.drop_order for column in columns):
        drop()
    name = max(4, left())
    return [(column, column.width or name) for column in columns]


def sorted_entries(entries: Iterable[Entry], column_id: str, *, reverse: bool) -> list[Entry]:
    """Return entries sorted by a column; equal ones by name in ascending order, also with `reverse`."""
    column = next(column for column in COLUMNS if column.id == column_id)
    by_name = sorted(entries, key=_name)
    return (
        by_name if column_id == "name" and not reverse else sorted(by_name, key=column.sort, reverse=reverse)
    )


class ModelTable(RowList):
    """One model per row."""

    BINDING_GROUP_TITLE = "Models: table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space",
            "mark",
            "Mark",
            key_display="spc",
            id="table.mark",
            tooltip="Mark the model to act on several at once",
        ),
        Binding("ctrl+a", "mark_all", "Mark all shown", show=False, id="table.mark_all"),
    ]

    @dataclass
    class MarksChanged(Message):
        """The set of marked models changed."""

        marks: frozenset[str]

    def __init__(self, *, now: Callable[[], datetime], id: str | None = None) -> None:  # noqa: A002 - as Textual has it
        super().__init__(id=id)
        self._now = now
        self._entries: dict[str, Entry] = {}
        self.marks: set[str] = set()

    def show(self, entries: Sequence[Entry]) -> None:
        self._entries = {entry.key: entry for entry in entries}
        self.set_rows([ListRow(entry.key) for entry in entries])

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
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
            return type_label(model), "muted"
        if column.id == "quant":
            return quant_label(model), "muted"
        if column.id == "size":
            return format_size(model.disk_bytes), ""
        if column.id == "modified":
            if column.width < 10:
                return short_age(model.last_modified, self._now()), "muted"
            return age(model.last_modified, self._now()), "muted"
        return entry.state.glyph, entry.state.token

    def row_clicked(self, row: ListRow, event: events.Click) -> None:
        """Mark a row that is clicked left of its name, or with ctrl held."""
        if event.x <= _MARK or event.ctrl:
            self.toggle(row.key)

    def toggle(self, key: str) -> None:
        self.marks.symmetric_difference_update({key})
        self._marks_changed()

    def clear_marks(self) -> None:
        self.marks.clear()
        self._marks_changed()

    def unmark(self, keys: Iterable[str]) -> None:
        if self.marks.intersection(keys):
            self.marks.difference_update(keys)
            self._marks_changed()

    def _marks_changed(self) -> None:
        self.refresh()
        self.post_message(self.MarksChanged(frozenset(self.marks)))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        return None if action in {"mark", "mark_all"} and not self._entries else True

    def action_mark(self) -> None:
        """Mark the row under the cursor and move to the next."""
        if (key := self.cursor_key) is not None:
            self.toggle(key)
            self.action_cursor_move(1)

    def action_mark_all(self) -> None:
        """Mark all rows that are shown, or unmark them if all are marked."""
        shown = set(self.keys)
        self.marks = self.marks - shown if shown <= self.marks else self.marks | shown
        self._marks_changed()


def name_parts(entry: Entry, cells: int, *, org: bool) -> list[Part]:
    """Return a name in exactly `cells`: the model's, then right-aligned an unusual organization, dimmed.

    The mark of an available update is beside the model's name.
    """
    mark = f" {UPDATE_GLYPH}" if entry.update is not None else ""
    short = cut(entry.short, cells - cell_len(mark))
    left = cells - cell_len(short) - cell_len(mark)
    parts: list[Part] = [(short, "strong")]
    if mark:
        parts.append((mark, "accent"))
    # In full or not at all: a truncated organization is noise.
    if org and entry.org not in {"", DEFAULT_ORG} and left >= 2 + cell_len(entry.org):
        return [*parts, (" " * (left - cell_len(entry.org)), ""), (entry.org, "faint")]
    return [*parts, (" " * left, "")]


class TableHeader(Widget):
    """The column titles; a click on one sorts."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"title", "title-sorted"}

    @dataclass
    class Clicked(Message):
        """A column title was clicked."""

        column: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as Textual has it - Textual's own name
        super().__init__(id=id)
        self._sorted = ("name", False)

    def show_sort(self, column: str, *, reverse: bool) -> None:
        """Show the sort arrow on a column."""
        self._sorted = (column, reverse)
        self.refresh()

    def _columns(self) -> list[tuple[Column, int]]:
        # One cell for the cursor bar on the left, one of padding and one for the scrollbar on the right.
        return layout(self.size.width - 3)

    @property
    def shown(self) -> list[str]:
        """Ids of the visible columns, left to right."""
        return [column.id for column, _ in self._columns()]

    def _titles(self) -> list[tuple[Column, str]]:
        """Return each column with its padded title; a sort arrow may use the gap after it."""
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
        plain, active = self.get_component_rich_style("title"), self.get_component_rich_style("title-sorted")
        segments = [Segment(" " * (1 + _MARK), plain)]
        for column, title in self._titles():
            style = active if column.id == self._sorted[0] else plain
            segments.append(Segment(title, style))
        return Strip(segments).adjust_cell_length(self.size.width, plain)

    def on_click(self, event: events.Click) -> None:
        left = 1 + _MARK
        for column, title in self._titles():
            right = left + cell_len(title)
            if left <= event.x < right:
                self.post_message(self.Clicked(column.id))
                return
            left = right
