"""The lines above the composer: model, settings and context, and the note that matters most."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual.widgets import Static

from mlxk_tui.chats.model import Message as ChatMessage
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation import models
from mlxk_tui.services.conversation.controller import ConversationController, missing_model_error
from mlxk_tui.services.conversation.request import shown_settings
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.text import Part, cut, gauge, line

_GAUGE = 8


@dataclass(frozen=True)
class BarState:
    """What the line says."""

    model: str = ""
    """Safe to show; empty where none is chosen."""
    gone: bool = False
    """Whether the model is not there any more."""
    settings: str = ""
    """What was set apart from the model's own: `temperature 0.7 · system prompt`."""
    used: int = 0
    """Tokens of the context that the conversation takes; 0 where nothing is known."""
    total: int = 0
    """Tokens of the context."""


@dataclass(frozen=True)
class Notes:
    """What the reader may have to be told."""

    write_error: OpError | None = None
    gone: str | None = None
    """Name of the model that is not there any more."""
    editing: bool = False
    below: bool = False
    tight: bool = False


class ChatBar(Static):
    """Model, settings and gauge; a click opens what it is on."""

    @dataclass
    class Opened(Message):
        """`model` or `settings` was clicked."""

        what: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._state = BarState()
        self._model_cells = 0
        self._settings_end = 0

    def show(self, state: BarState) -> None:
        """Draw another state."""
        if state != self._state:
            self._state = state
            self._draw()

    def on_mount(self) -> None:
        """Draw the first state."""
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()

    def _draw(self) -> None:
        state, width = self._state, self.size.width or 60
        right = self._share()
        right_cells = sum(cell_len(text) for text, _ in right)
        if right_cells > width // 2:
            right = [part for part in right if "▰" not in part[0] and "▱" not in part[0]]
            right_cells = sum(cell_len(text) for text, _ in right)
        room = max(8, width - right_cells - 2)
        if not state.model:
            left: list[Part] = [("no model chosen", "$attention")]
        elif state.gone:
            left = [("✗ ", "$bad"), (cut(state.model, room - 8), ""), (" is gone", "$bad")]
        else:
            left = [(cut(state.model, room), "")]
        self._model_cells = sum(cell_len(text) for text, _ in left)
        settings = f"   {state.settings}" if state.settings else ""
        if settings and self._model_cells + cell_len(settings) > room:
            settings = "   set" if self._model_cells + 6 <= room else ""
        self._settings_end = self._model_cells + cell_len(settings)
        if settings:
            left.append((settings, "$muted"))
        gap = max(1, width - self._settings_end - right_cells)
        self.update(line([*left, (" " * gap, ""), *right]), layout=False)

    def _share(self) -> list[Part]:
        state = self._state
        if not state.used:
            return [(f"context {state.total:,}", "$muted")] if state.total else []
        if not state.total:
            return [(f"{state.used:,} tokens", "$muted")]
        share = state.used / state.total
        style = "$bad" if share > 0.95 else "$attention" if share > 0.8 else "$accent"
        full, empty = gauge(min(1.0, share), _GAUGE)
        return [
            (full, style), (empty, "$line"), (f" {state.used:,} of {state.total:,} tokens", "$muted")
        ]  # fmt: skip

    def on_click(self, event: events.Click) -> None:
        """Open the choice of models, or the settings."""
        if event.x < self._model_cells:
            self.post_message(self.Opened("model"))
        elif event.x < self._settings_end or self._settings_end == self._model_cells:
            self.post_message(self.Opened("settings"))


def bar_state(talk: ConversationController, last: ChatMessage | None) -> BarState:
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
        used, known = _context_of(last) if last is not None else (0, 0)
    return BarState(
        model=printable((session.model or "").rpartition("/")[2]),
        gone=models.is_missing(talk.library, session.model),
        settings=shown_settings(session.settings, session.system),
        used=used,
        total=known or total,
    )


def _context_of(answer: ChatMessage) -> tuple[int, int]:
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
        return f"✗ {error_text(missing_model_error(notes.gone))}", "$bad"
    if notes.editing:
        return "Another version of a question: ⏎ sends it as a branch, esc leaves it.", "$accent"
    if notes.below:
        return "↓ New text below: G goes there.", "$accent"
    if notes.tight:
        return "▲ The model fits tightly: other programs may become slow.", "$attention"
    return "", ""
