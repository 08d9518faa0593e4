"""What stands in a chat without a message: what can be done, and questions that a demo model knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button

from mlxk_tui.ui.widgets.state_view import StateView


class Suggestion(Button):
    """A question to click on."""

    def __init__(self, text: str) -> None:
        super().__init__(Content(text), compact=True, classes="suggestion")
        self.question = text


class ChatInvite(Vertical):
    """A message and, below it, questions."""

    @dataclass
    class Asked(Message):
        """A question was chosen."""

        question: str

    def compose(self) -> ComposeResult:
        """Lay out the message."""
        yield StateView(id="chat-message")
        yield Vertical(id="chat-suggestions")

    @property
    def view(self) -> StateView:
        """The message."""
        return self.query_one("#chat-message", StateView)

    async def suggest(self, questions: Sequence[str]) -> None:
        """Offer questions."""
        box = self.query_one("#chat-suggestions", Vertical)
        if [button.question for button in box.query(Suggestion)] != list(questions):
            async with box.batch():
                await box.remove_children()
                await box.mount_all(Suggestion(question) for question in questions)
        box.display = bool(questions)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Ask."""
        event.stop()
        if isinstance(event.button, Suggestion):
            self.post_message(self.Asked(event.button.question))
