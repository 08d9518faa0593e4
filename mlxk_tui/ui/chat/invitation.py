"""What stands in a chat without a message: what can be done, and questions that a demo model knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button

from mlxk_tui.demo import tiny_model
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation import models
from mlxk_tui.services.conversation.controller import ConversationController
from mlxk_tui.ui.shell import empty_states
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.state_view import StateView


@dataclass(frozen=True)
class Opening:
    """How far the store is."""

    done: bool = False
    problem: OpError | None = None
    """Why the chats cannot be opened."""
    no_mlx: bool = False
    """Whether no model can run on this machine at all."""


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


def invite(view: StateView, opening: Opening, talk: ConversationController) -> tuple[str, ...]:
    """Show what stands in an empty chat; return the questions that are offered."""
    library = talk.library
    if opening.problem is not None:
        said = error_text(opening.problem)
        view.show("✗", "The chats cannot be opened", [said], style="$bad", keys=[("x", "try again")])
    elif not opening.done:
        view.show("·  ·  ·", "Opening the chats", [])
    elif opening.no_mlx:
        view.show(
            "▲",
            "Models cannot run here",
            ["mlx-lm is not installed. It needs Apple silicon or Linux.", "Kept chats can be read."],
            style="$attention",
            command="pip install mlx-lm",
        )
    elif not models.chat_models(library):
        if not empty_states.show_unread(view, library, reading="Looking for models"):
            some = bool(library.entries)
            said = "None of the models here can answer." if some else "The cache is empty."
            view.show(
                "◇",
                "No model to talk to yet",
                [said, "A small one is pulled in minutes."],
                keys=[("F3", "find one"), ("F1", "models")],
            )
    else:
        name = talk.session.model or ""
        short = printable(name.rpartition("/")[2])
        if name == tiny_model.NAME:
            view.show("❯", f"Ask {short} something", ["It knows only this app. Some things to ask:"])
            return tiny_model.SUGGESTIONS
        view.show(
            "❯", f"Ask {short} something", ["Chats are kept on this machine."], keys=[("F9", "another model")]
        )
    return ()
