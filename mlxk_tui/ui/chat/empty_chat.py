"""The content of a chat without messages: the next step, and suggested prompts for the demo's model."""

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
class StoreState:
    """The state of the chats' store."""

    done: bool = False
    """Whether it is open."""
    problem: OpError | None = None
    """Why it can't be opened."""
    no_mlx: bool = False
    """Whether mlx-lm is missing, so that no model can run."""


class SuggestionButton(Button):
    """A suggested prompt."""

    def __init__(self, prompt: str) -> None:
        super().__init__(Content(prompt), compact=True, classes="suggestion")
        self.prompt = prompt


class EmptyChat(Vertical):
    """A message and, below it, suggested prompts."""

    @dataclass
    class Suggested(Message):
        """A suggested prompt was selected."""

        prompt: str

    def compose(self) -> ComposeResult:
        yield StateView(id="chat-message")
        yield Vertical(id="chat-suggestions")

    @property
    def view(self) -> StateView:
        return self.query_one("#chat-message", StateView)

    async def suggest(self, prompts: Sequence[str]) -> None:
        """Show suggested prompts."""
        box = self.query_one("#chat-suggestions", Vertical)
        if [button.prompt for button in box.query(SuggestionButton)] != list(prompts):
            async with box.batch():
                await box.remove_children()
                await box.mount_all(SuggestionButton(prompt) for prompt in prompts)
        box.display = bool(prompts)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if isinstance(event.button, SuggestionButton):
            self.post_message(self.Suggested(event.button.prompt))


def show_empty_chat(
    view: StateView, store_state: StoreState, controller: ConversationController
) -> tuple[str, ...]:
    """Show the message of a chat without messages; return the prompts to suggest."""
    library = controller.library
    if store_state.problem is not None:
        cause = error_text(store_state.problem)
        view.show("✗", "Can't open the chats", [cause], style="$bad", keys=[("x", "retry")])
    elif not store_state.done:
        view.show("·  ·  ·", "Opening chats", [])
    elif store_state.no_mlx:
        view.show(
            "▲",
            "Models can't run here",
            ["mlx-lm is not installed. It needs Apple silicon or Linux.", "Saved chats can still be read."],
            style="$attention",
            command="pip install mlx-lm",
        )
    elif not models.chat_models(library):
        if not empty_states.show_scan_state(view, library, loading="Scanning the cache"):
            installed = bool(library.entries)
            cause = "None of the installed models can chat." if installed else "The cache is empty."
            view.show(
                "◇",
                "No chat model yet",
                [cause, "Pulling a small one takes a few minutes."],
                keys=[("F3", "find a model"), ("F1", "models")],
            )
    else:
        name = controller.session.model or ""
        short = printable(name.rpartition("/")[2])
        if name == tiny_model.NAME:
            view.show("❯", f"Chat with {short}", ["It only knows this app. Suggestions:"])
            return tiny_model.SUGGESTIONS
        view.show(
            "❯", f"Chat with {short}", ["Chats are saved on this machine."], keys=[("F9", "switch model")]
        )
    return ()
