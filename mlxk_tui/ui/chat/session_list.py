"""The list of chats: title, model and age, or the match of a search."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from rich.cells import cell_len
from textual import getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input

from mlxk_tui.chats.model import SessionListItem
from mlxk_tui.ops.core.text import iso_utc, printable
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.state_view import StateView
from mlxk_tui.ui.widgets.text import Part, cut_end, pad, short_age

UNTITLED = "New chat"
_PRELOAD = 20
"""More chats are requested when the cursor is this many before the last one."""


class SessionSearchInput(Input):
    """The search input; enter and down return to the list, escape also clears the search."""

    BINDING_GROUP_TITLE = "Chat: search"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave(True)", "Clear", id="chats.search_clear", tooltip="Clear the search"),
        Binding("enter,down", "leave(False)", "To the list", key_display="⏎", id="chats.search_leave"),
        Binding("f12", "app.keys", "Help", key_display="F12", show=False, id="chats.search_help"),
    ]

    @dataclass
    class Closed(Message):
        """A key returned to the list; `clear`: the search is to be cleared."""

        clear: bool

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Treat `/` and `?` as typed text: Textual (8.2.8) would show them as key bindings in the footer."""
        return key in {"slash", "question_mark"} or super().check_consume_key(key, character)

    def action_leave(self, clear: bool) -> None:
        self.post_message(self.Closed(clear))


class SessionList(RowList):
    """Chats, newest first, two lines each."""

    BINDING_GROUP_TITLE = "Chat: list of chats"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("R", "screen.rename", "Rename", id="chats.rename", tooltip="Rename the chat"),
        Binding("d", "screen.delete", "Delete", id="chats.delete", tooltip="Delete the chat (u restores it)"),
    ]

    @dataclass
    class MoreRequested(Message):
        """The cursor or the visible part is near the last chat."""

    def __init__(self, *, now: Callable[[], datetime], id: str | None = None) -> None:  # noqa: A002 - as Textual has it
        super().__init__(id=id)
        self._now = now
        self._listed: dict[str, SessionListItem] = {}
        self._open: int | None = None
        self._busy: Collection[int] = ()

    def show(self, listed: Sequence[SessionListItem], open_id: int | None, busy: Collection[int]) -> None:
        """Show chats; `open_id` is the open one, `busy` are those with an answer in progress."""
        before, top = self.keys, self.scroll_y
        self._listed = {str(item.session.id): item for item in listed}
        self._open, self._busy = open_id, set(busy)
        self.set_rows([ListRow(key, 2) for key in self._listed])
        if before and len(before) < len(self.keys) and self.keys[: len(before)] == before:
            # Older chats were appended: keep the scroll position, the cursor may be far above.
            self.scroll_to(y=top, animate=False, immediate=True)

    def watch_cursor(self, old: int, new: int) -> None:
        super().watch_cursor(old, new)
        if new >= len(self._listed) - _PRELOAD:
            self.post_message(self.MoreRequested())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self.virtual_size.height - new_value - self.size.height <= 2 * _PRELOAD:
            self.post_message(self.MoreRequested())

    def mark_open(self, open_id: int | None) -> None:
        """Mark another chat as open and move the cursor to it."""
        self._open = open_id
        if open_id is not None:
            self.move_to(str(open_id))
        self.refresh()

    @property
    def selected(self) -> SessionListItem | None:
        """The chat under the cursor."""
        return self._listed.get(self.cursor_key or "")

    def row_line(self, row: ListRow, number: int, width: int) -> Sequence[Part]:
        item = self._listed[row.key]
        session = item.session
        if number == 0:
            busy = session.id in self._busy
            mark: Part = (
                ("● ", "accent") if busy else ("› ", "accent") if session.id == self._open else ("  ", "")
            )
            title = cut_end(printable(session.title) or UNTITLED, width - 2)
            return [mark, (title, "strong" if session.id == self._open else "")]
        if item.match is not None:
            return [("  ", ""), *_match_parts(item, width - 2)]
        age = short_age(iso_utc(session.updated), self._now())
        model = printable((session.model or "no model").rpartition("/")[2])
        return [("  ", ""), (pad(model, width - 2 - cell_len(age) - 1), "muted"), (f" {age}", "muted")]


def _match_parts(item: SessionListItem, width: int) -> list[Part]:
    match = item.match
    if match is None:
        return []
    text, spans = match.text, match.spans
    begin = 0
    if spans and spans[0][0] > width // 2:  # make the first match visible
        begin = spans[0][0] - width // 4
    parts: list[Part] = []
    place = begin
    for start, end in spans:
        if start < place:
            continue
        parts += [(text[place:start], "muted"), (text[start:end], "accent")]
        place = end
    parts.append((text[place:], "muted"))
    return _fit(parts, width)


def _fit(parts: Sequence[Part], width: int) -> list[Part]:
    fitting: list[Part] = []
    for text, style in parts:
        shown = cut_end(text, width)
        fitting.append((shown, style))
        width -= cell_len(shown)
        if width <= 0:
            break
    return fitting


class SessionsPanel(Vertical):
    """The search input above the list of chats."""

    search = getters.query_one(SessionSearchInput)
    listing = getters.query_one(SessionList)
    message = getters.query_one(StateView)

    @dataclass
    class Searched(Message):
        """The search changed."""

        query: str

    def __init__(self, *, now: Callable[[], datetime], id: str | None = None) -> None:  # noqa: A002 - as Textual has it
        super().__init__(id=id)
        self._now = now
        self.has_more = False
        """Whether there are older chats than the listed ones."""
        self.border_title = "Chats"

    def compose(self) -> ComposeResult:
        search = SessionSearchInput(
            placeholder="Search chats", compact=True, select_on_focus=False, id="chat-search"
        )
        search.display = False
        yield search
        yield SessionList(now=self._now, id="chat-list")
        yield StateView(id="chat-list-message")

    @property
    def query_text(self) -> str:
        return self.search.value.strip()

    def show(
        self,
        listed: Sequence[SessionListItem],
        open_id: int | None,
        busy: Collection[int],
        *,
        has_more: bool = False,
    ) -> None:
        """Show chats; see `SessionList.show`."""
        self.has_more = has_more
        self.listing.show(listed, open_id, busy)
        self.set_class(not listed, "-message")
        if not listed:
            if self.query_text:
                self.message.show("∅", "No matches", [], keys=[("esc", "clear")])
            else:
                self.message.show("◇", "No chats yet", ["Your chats appear here."])
        count = f"{len(listed):,}{'+' if has_more else ''}"
        self.border_subtitle = f"{count} found" if self.query_text else count if listed else ""

    def open_search(self) -> None:
        self.search.display = True
        self.search.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Searched(event.value.strip()))

    def on_session_search_input_closed(self, event: SessionSearchInput.Closed) -> None:
        event.stop()
        if event.clear:
            self.search.value = ""
        self.search.display = bool(self.query_text)
        self.listing.focus()
