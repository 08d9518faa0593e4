"""A virtual list that renders only the visible rows: 2,000 models cost as much as 20.

Textual's DataTable holds a rendered cell for each value and computes its whole layout again when it is
filled, sorted or filtered (0.2-0.5 s for 1,000 rows in 8.2.8, on the event loop). Here a row is a key and a
height; its content is requested when it is visible.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from mlxk_tui.ui.widgets.text import Part


@dataclass(frozen=True)
class ListRow:
    """A row: its key and its height."""

    key: str
    height: int = 1
    """Lines."""
    selectable: bool = True
    """False for headings, which the cursor skips."""


class RowList(ScrollView, can_focus=True):
    """A virtual list with a cursor; subclasses render the lines of a row in `row_line`."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "row-plain",
        "row-cursor",
        "row-hover",
        "strong",
        "muted",
        "faint",
        "accent",
        "good",
        "attention",
        "bad",
    }
    BINDING_GROUP_TITLE = "Lists"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "cursor_move(1)", "Down", show=False, id="list.down"),
        Binding("up,k", "cursor_move(-1)", "Up", show=False, id="list.up"),
        Binding("g,home", "cursor_edge(-1)", "First", show=False, id="list.first"),
        Binding("G,end", "cursor_edge(1)", "Last", show=False, id="list.last"),
        Binding("pagedown,ctrl+d", "cursor_page(1)", "Page down", show=False, id="list.page_down"),
        Binding("pageup,ctrl+u", "cursor_page(-1)", "Page up", show=False, id="list.page_up"),
        Binding("enter", "choose", "Open", show=False, id="list.open"),
    ]

    cursor: reactive[int] = reactive(-1, always_update=False)
    """Index of the row under the cursor; -1 for none."""
    hover: reactive[int] = reactive(-1)
    """Index of the row under the mouse; -1 for none."""

    @dataclass
    class Highlighted(Message):
        """The cursor moved to another row."""

        source: RowList
        key: str | None

        @property
        def control(self) -> RowList:
            return self.source

    @dataclass
    class Selected(Message):
        """A row was selected with enter or a double click."""

        source: RowList
        key: str

        @property
        def control(self) -> RowList:
            return self.source

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._rows: list[ListRow] = []
        self._index: dict[str, int] = {}
        self._tops: list[int] = []
        self._cursor_moved = False
        """Whether the cursor was moved; until then it stays on the first row."""

    def row_line(self, row: ListRow, number: int, width: int) -> Sequence[Part]:
        """Return line `number` of `row` as (text, component class) parts, at most `width` cells."""
        raise NotImplementedError

    @property
    def cursor_key(self) -> str | None:
        """Key of the row under the cursor."""
        return self._rows[self.cursor].key if 0 <= self.cursor < len(self._rows) else None

    @property
    def keys(self) -> list[str]:
        """Keys of all rows, top to bottom."""
        return [row.key for row in self._rows]

    def set_rows(self, rows: list[ListRow]) -> None:
        """Replace the rows; the cursor stays on its row, and the row at its place on the screen."""
        before = self.cursor_key
        offset = self._tops[self.cursor] - round(self.scroll_y) if before is not None else 0
        self._rows = rows
        self._index = {row.key: number for number, row in enumerate(rows)}
        self._tops = []
        total = 0
        for row in rows:
            self._tops.append(total)
            total += row.height
        self.virtual_size = Size(0, total)
        if before is not None and self._cursor_moved and before in self._index:
            new = self._index[before]
            self.set_reactive(RowList.cursor, new)
            self.scroll_to(y=max(0, self._tops[new] - offset), animate=False, immediate=True)
        else:
            self.set_reactive(RowList.cursor, self._nearest(self.cursor if self._cursor_moved else 0))
        self._show_cursor()
        self.refresh()
        if self.cursor_key != before:
            self.post_message(self.Highlighted(self, self.cursor_key))

    def move_to(self, key: str) -> None:
        if key in self._index:
            self._cursor_moved = True
            self.cursor = self._index[key]

    def _nearest(self, index: int) -> int:
        """Return the selectable row at `index`, else the next one below, else above; -1 for none."""
        last = len(self._rows) - 1
        index = max(0, min(index, last))
        for candidate in chain(range(index, last + 1), range(index - 1, -1, -1)):
            if self._rows[candidate].selectable:
                return candidate
        return -1

    # -- drawing ---------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        plain = self.get_component_rich_style("row-plain")
        number = y + round(self.scroll_y)
        index = bisect_right(self._tops, number) - 1
        if index < 0 or number >= self._tops[index] + self._rows[index].height:
            return Strip.blank(width, plain)
        row = self._rows[index]
        on_cursor = index == self.cursor
        if on_cursor:
            base = self.get_component_rich_style("row-cursor")
        elif index == self.hover and row.selectable:
            base = self.get_component_rich_style("row-hover")
        else:
            base = plain
        marker = "▌" if on_cursor and self.has_focus else " "
        segments = [Segment(marker, base + self._token("accent"))]
        plainly = bool(base.reverse)  # colors would become blocks in a reversed row
        segments.extend(
            Segment(text, base + self._token(token) if token and not plainly else base)
            for text, token in self.row_line(row, number - self._tops[index], width - 1)
        )
        return Strip(segments).adjust_cell_length(width, base)

    def _token(self, name: str) -> Style:
        style = self.get_component_rich_style(name, partial=True)
        # Color and weight only: the background is the row's.
        return Style(color=style.color, bold=style.bold, dim=style.dim)

    def refresh_row(self, key: str) -> None:
        if key in self._index:
            self.refresh()

    # -- cursor ----------------------------------------------------------------------------------

    def watch_cursor(self, _old: int, new: int) -> None:
        self._show_cursor()
        self.refresh()
        self.post_message(self.Highlighted(self, self.cursor_key))

    def watch_hover(self) -> None:
        self.refresh()

    def _show_cursor(self) -> None:
        if not 0 <= self.cursor < len(self._rows):
            return
        top = self._tops[self.cursor]
        bottom = top + self._rows[self.cursor].height
        first = self._nearest(0) == self.cursor
        height = self.scrollable_content_region.height
        if not height:
            return
        current = round(self.scroll_y)
        target = current
        if bottom > current + height:
            target = bottom - height
        if top < target:
            target = 0 if first else top
        elif first:
            target = 0
        if target != current:
            self.scroll_to(y=target, animate=False, immediate=True)

    def _step(self, index: int, by: int) -> int:
        while 0 <= index < len(self._rows):
            if self._rows[index].selectable:
                return index
            index += by
        return self.cursor

    def action_cursor_move(self, by: int) -> None:
        self._cursor_moved = True
        self.cursor = self._step(self.cursor + by, by)

    def action_cursor_edge(self, direction: int) -> None:
        """Move the cursor to the first (-1) or last (1) row."""
        self._cursor_moved = True
        self.cursor = self._step(0, 1) if direction < 0 else self._step(len(self._rows) - 1, -1)

    def action_cursor_page(self, direction: int) -> None:
        if self.cursor < 0:
            return
        self._cursor_moved = True
        goal = self._tops[self.cursor] + direction * max(1, self.scrollable_content_region.height - 1)
        index = bisect_right(self._tops, max(0, goal)) - 1
        self.cursor = self._nearest(index)

    def action_choose(self) -> None:
        if (key := self.cursor_key) is not None:
            self.post_message(self.Selected(self, key))

    # -- mouse -----------------------------------------------------------------------------------

    def row_at(self, y: int) -> int:
        """Return the index of the row at line `y` of the widget, or -1."""
        number = y + round(self.scroll_y)
        index = bisect_right(self._tops, number) - 1
        inside = index >= 0 and number < self._tops[index] + self._rows[index].height
        return index if inside and self._rows[index].selectable else -1

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.hover = self.row_at(event.y)

    def on_leave(self) -> None:
        self.hover = -1

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the click; a double click selects the row."""
        index = self.row_at(event.y)
        if index < 0:
            return
        self._cursor_moved = True
        self.cursor = index
        self.row_clicked(self._rows[index], event)
        if event.chain == 2:
            self.action_choose()

    def row_clicked(self, row: ListRow, event: events.Click) -> None:
        """Handle a click on a row; for subclasses."""

    def on_resize(self) -> None:
        self._show_cursor()
        self.refresh()

    def on_focus(self) -> None:
        self.refresh(Region(0, 0, self.size.width, self.size.height))

    def on_blur(self) -> None:
        self.refresh(Region(0, 0, self.size.width, self.size.height))
