"""The composer: enter sends the message, up recalls an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from mlxk_tui.ui.chat.attachments import paths_in_paste

PASTE_AS_FILE = 8_000
"""Characters from which a paste becomes an attachment, so that the composer stays readable."""


class Composer(TextArea):
    """A plain text area that grows with its content."""

    BINDING_GROUP_TITLE = "Chat: composer"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", key_display="⏎", id="composer.send", tooltip="Send the message"),
        Binding(
            "shift+enter,alt+enter",
            "break_line",
            "New line",
            show=False,
            id="composer.break",
            tooltip="Insert a line break; in every terminal, backslash and enter",
        ),
        Binding(
            "up",
            "cursor_up",
            "Recall",
            show=False,
            key_display="↑",
            id="composer.recall",
            tooltip="In an empty composer: edit an earlier message as a new branch",
        ),
        Binding(
            "escape",
            "leave",
            "Messages",
            key_display="esc",
            id="composer.leave",
            tooltip="Stop the answer, cancel the edit, or focus the messages",
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
            tooltip="Focus the list of chats",
        ),
        Binding("f8", "screen.new", "New", key_display="F8", id="composer.new", tooltip="Start a new chat"),
        Binding(
            "f9",
            "screen.model",
            "Model",
            key_display="F9",
            id="composer.model",
            tooltip="Switch model",
        ),
        Binding(
            "f10",
            "screen.settings",
            "Settings",
            key_display="F10",
            id="composer.settings",
            tooltip="Set system prompt, sampling and token limit of the chat",
        ),
        Binding("f12", "app.keys", "Help", key_display="F12", show=False, id="composer.help"),
    ]

    @dataclass
    class Sent(Message):
        """The message was submitted."""

        text: str

    @dataclass
    class Recall(Message):
        """An earlier (-1) or later (1) message of the user was requested."""

        direction: int

    @dataclass
    class Escaped(Message):
        """Escape was pressed."""

    @dataclass
    class FilesPasted(Message):
        """Paths of files were pasted, as terminals do for dragged files."""

        paths: list[str]

    @dataclass
    class LongTextPasted(Message):
        """A text of more than PASTE_AS_FILE characters was pasted."""

        text: str

    @dataclass
    class EmptyBackspace(Message):
        """Backspace was pressed in the empty composer."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(
            id=id,
            compact=True,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            tab_behavior="focus",
            placeholder="Ask anything · ↑ edit last message · F12 keys",
        )
        self.recalling = False
        """Whether the text is an earlier message, so that up and down recall others."""

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        """Treat these keys as typed text: Textual (8.2.8) would show them as key bindings in the footer."""
        return key in {"slash", "question_mark", "space"} or super().check_consume_key(key, character)

    def set_text(self, text: str) -> None:
        """Replace the text and move the cursor to its end."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.action_send()
            return
        if event.key == "backspace" and not self.text:
            self.post_message(self.EmptyBackspace())
        await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        if paths := paths_in_paste(text):
            self.post_message(self.FilesPasted(paths))
        elif len(text) > PASTE_AS_FILE:
            self.post_message(self.LongTextPasted(text))
        else:
            await super()._on_paste(events.Paste(text))
        event.stop()
        event.prevent_default()

    def action_send(self) -> None:
        """Submit the message, or insert a line break if a backslash precedes the cursor."""
        row, column = self.cursor_location
        line = self.document.get_line(row)
        if self.selection.is_empty and column and line[column - 1] == "\\":
            self.replace("\n", (row, column - 1), (row, column))
            return
        self.post_message(self.Sent(self.text))

    def action_break_line(self) -> None:
        start, end = self.selection
        self.replace("\n", start, end)

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up; from the first line of an empty or recalled text, recall an earlier message."""
        if not select and self.cursor_at_first_line and (self.recalling or not self.text):
            self.post_message(self.Recall(-1))
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down; from the last line of a recalled text, recall a later message."""
        if not select and self.recalling and self.cursor_at_last_line:
            self.post_message(self.Recall(1))
        else:
            super().action_cursor_down(select)

    def action_leave(self) -> None:
        self.post_message(self.Escaped())
