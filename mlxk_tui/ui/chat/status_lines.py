"""What the Chat pane says beside the messages: the line above the composer, the notes, the invitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.chats.model import Message
from mlxk_tui.demo import tiny_model
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation import models
from mlxk_tui.services.conversation.controller import ConversationController, gone
from mlxk_tui.services.conversation.request import shown_settings
from mlxk_tui.services.library import Library, ScanPhase
from mlxk_tui.ui.chat.bar import BarState
from mlxk_tui.ui.shell import empty_states
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.state_view import StateView

if TYPE_CHECKING:
    from mlxk_tui.ui.chat.message import MessageBlock


@dataclass(frozen=True)
class Opening:
    """How far the store is."""

    done: bool = False
    problem: OpError | None = None
    """Why the chats cannot be opened."""
    no_mlx: bool = False
    """Whether no model can run on this machine at all."""


@dataclass(frozen=True)
class Notes:
    """What the reader may have to be told."""

    write_error: OpError | None = None
    gone: str | None = None
    """Name of the model that is not there any more."""
    editing: bool = False
    below: bool = False
    tight: bool = False


def model_gone(library: Library, name: str | None) -> bool:
    """Tell whether a chat's model is not in the cache any more."""
    ready = library.phase is ScanPhase.READY
    return ready and name is not None and models.by_name(library, name) is None


def bar_state(talk: ConversationController, last: MessageBlock | None) -> BarState:
    """Return what stands above the composer.

    Args:
        talk: the open chat.
        last: its last answer.
    """
    session = talk.session
    entry = models.by_name(talk.library, session.model)
    total = (entry.model.context_length or 0) if entry else 0
    if talk.answer is not None:
        used, known = talk.answer.used, talk.answer.context_length
    else:
        used, known = _context_of(last.message) if last is not None else (0, 0)
    return BarState(
        model=printable((session.model or "").rpartition("/")[2]),
        gone=model_gone(talk.library, session.model),
        settings=shown_settings(session.settings, session.system),
        used=used,
        total=known or total,
    )


def _context_of(answer: Message) -> tuple[int, int]:
    """Return the tokens of prompt and answer, and those of the context; 0 where unknown."""

    def number(name: str) -> int:
        value = answer.usage.get(name)
        return value if isinstance(value, int) and 0 <= value < 10**12 else 0

    return number("prompt_tokens") + number("completion_tokens"), number("context_length")


def note(notes: Notes) -> tuple[str, str]:
    """Return the one note that matters most and its style; empty for none."""
    if notes.write_error is not None:
        return f"✗ {error_text(notes.write_error)}", "$bad"
    if notes.gone is not None:
        return f"✗ {error_text(gone(notes.gone))}", "$bad"
    if notes.editing:
        return "Another version of a question: ⏎ sends it as a branch, esc leaves it.", "$accent"
    if notes.below:
        return "↓ New text below: G goes there.", "$accent"
    if notes.tight:
        return "▲ The model fits tightly: other programs may become slow.", "$attention"
    return "", ""


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
    elif not models.answering(library):
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
