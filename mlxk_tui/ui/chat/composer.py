"""The field in which a question is written: enter sends it, up brings back an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from mlxk_tui.ui.chat.attachments import paths_in_paste

PASTE_AS_FILE = 8_000
"""Characters from which a paste becomes an attachment: all of it goes along, and the field stays usable."""


class Composer(TextArea):
    """Several lines of plain text that grow with what is in them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", key_display="⏎", id="composer.send", tooltip="Send the question"),
        Binding(
            "shift+enter,alt+enter",
            "break_line",
            "New line",
            show=False,
            id="composer.break",
            tooltip="Break the line; a backslash before enter does so in every terminal",
        ),
        Binding(
            "up",
            "cursor_up",
            "Recall",
            show=False,
            key_display="↑",
            id="composer.recall",
            tooltip="In an empty field: take an earlier question up again, to be sent as another branch",
        ),
        Binding(
            "escape",
            "leave",
            "Messages",
            key_display="esc",
            id="composer.leave",
            tooltip="Stop the answer, leave an edit, or go to the messages",
        ),
        Binding(
            "f6", "screen.attach", "File", show=False, id="composer.attach", tooltip="Attach a text file"
        ),
        Binding(
            "f7",
            "screen.sessions",
            "Chats",
            show=False,
            id="composer.sessions",
            tooltip="Go to the list of chats",
        ),
        Binding("f8", "screen.new", "New", key_display="F8", id="composer.new", tooltip="Begin a new chat"),
        Binding(
            "f9",
            "screen.model",
            "Model",
            key_display="F9",
            id="composer.model",
            tooltip="Choose who answers next",
        ),
        Binding(
            "f10",
            "screen.settings",
            "Settings",
            key_display="F10",
            id="composer.settings",
            tooltip="System prompt, sampling and limit of this chat",
        ),
        Binding("f12", "app.keys", "Help", key_display="F12", show=False, id="composer.help"),
    ]

    @dataclass
    class Sent(Message):
        """The question is complete."""

        text: str

    @dataclass
    class Recall(Message):
        """An earlier (-1) or later (1) question is wanted."""

        way: int

    @dataclass
    class Left(Message):
        """Escape was pressed."""

    @dataclass
    class Attach(Message):
        """Files were dragged in, or their paths pasted."""

        paths: list[str]

    @dataclass
    class Pasted(Message):
        """A text that is too long for the field was pasted."""

        text: str

    @dataclass
    class Erased(Message):
        """Backspace was pressed in an empty field."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(
            id=id,
            compact=True,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            tab_behavior="focus",
            placeholder="Ask something · ↑ edits the last question · F12 all keys",
        )
        self.recalling = False
        """Whether an earlier question stands in the field, so that up and down go through them."""

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        """Keep the keys that are typed out of the footer; Textual (8.2.8) does not know all as letters."""
        return key in {"slash", "question_mark", "space"} or super().check_consume_key(key, character)

    def put(self, text: str) -> None:
        """Replace what is there, with the cursor at the end."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.action_send()
            return
        if event.key == "backspace" and not self.text:
            self.post_message(self.Erased())
        await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        if paths := paths_in_paste(text):
            self.post_message(self.Attach(paths))
        elif len(text) > PASTE_AS_FILE:
            self.post_message(self.Pasted(text))
        else:
            await super()._on_paste(events.Paste(text))
        event.stop()
        event.prevent_default()

    def action_send(self) -> None:
        """Send, or break the line where a backslash stands before the cursor."""
        row, column = self.cursor_location
        line = self.document.get_line(row)
        if self.selection.is_empty and column and line[column - 1] == "\\":
            self.replace("\n", (row, column - 1), (row, column))
            return
        self.post_message(self.Sent(self.text))

    def action_break_line(self) -> None:
        """Break the line."""
        start, end = self.selection
        self.replace("\n", start, end)

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up; from the first line of nothing, or of a recalled question, to an earlier question."""
        if not select and self.cursor_at_first_line and (self.recalling or not self.text):
            self.post_message(self.Recall(-1))
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down; from the last line of a recalled question to a later one."""
        if not select and self.recalling and self.cursor_at_last_line:
            self.post_message(self.Recall(1))
        else:
            super().action_cursor_down(select)

    def action_leave(self) -> None:
        """Leave."""
        self.post_message(self.Left())
