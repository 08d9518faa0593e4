"""The lines above the composer: model, settings and context, and one note."""

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
from mlxk_tui.ui.widgets.text import Part, cut, cut_end, gauge, line

_GAUGE = 8
_MIN_SETTINGS = 11
"""Cells that truncated settings need to be readable."""


@dataclass(frozen=True)
class BarState:
    """The content of the bar."""

    model: str = ""
    """Safe to show; empty if none is selected."""
    missing: bool = False
    """Whether the model is no longer in the cache."""
    settings: str = ""
    """The chat's own settings: `temperature 0.7 · system prompt`."""
    used: int = 0
    """Tokens of the conversation; 0 while unknown."""
    total: int = 0
    """Context length in tokens; 0 if unknown."""


@dataclass(frozen=True)
class NoteConditions:
    """The conditions of a note above the composer."""

    write_error: OpError | None = None
    missing_model: str | None = None
    """Name of the model that is no longer in the cache."""
    editing: bool = False
    unseen_below: bool = False
    """Whether there is new text below the visible part."""
    memory_tight: bool = False


class ChatBar(Static):
    """Model, settings and context gauge; a click on model or settings opens their dialog."""

    @dataclass
    class Clicked(Message):
        """`model` or `settings` was clicked."""

        part: str

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._state = BarState()
        self._model_cells = 0
        self._settings_end = 0

    def show(self, state: BarState) -> None:
        if state != self._state:
            self._state = state
            self._draw()

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        state, width = self._state, self.size.width or 60
        right = self._context_usage()
        right_cells = sum(cell_len(text) for text, _ in right)
        if right_cells > width // 2:
            right = [part for part in right if "▰" not in part[0] and "▱" not in part[0]]
            right_cells = sum(cell_len(text) for text, _ in right)
        room = max(8, width - right_cells - 2)
        if not state.model:
            left: list[Part] = [("no model selected", "$attention")]
        elif state.missing:
            left = [("✗ ", "$bad"), (cut(state.model, room - 13), ""), (" is missing", "$bad")]
        else:
            left = [(cut(state.model, room), "")]
        self._model_cells = sum(cell_len(text) for text, _ in left)
        settings = ""
        if state.settings and self._model_cells + _MIN_SETTINGS <= room:
            settings = cut_end(f"   {state.settings}", room - self._model_cells)
        self._settings_end = self._model_cells + cell_len(settings)
        if settings:
            left.append((settings, "$muted"))
        gap = max(1, width - self._settings_end - right_cells)
        self.update(line([*left, (" " * gap, ""), *right]), layout=False)

    def _context_usage(self) -> list[Part]:
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
        if event.x < self._model_cells:
            self.post_message(self.Clicked("model"))
        elif event.x < self._settings_end or self._settings_end == self._model_cells:
            self.post_message(self.Clicked("settings"))


def bar_state(controller: ConversationController, last: ChatMessage | None) -> BarState:
    """Return the bar of the open chat.

    Args:
        controller: the open chat.
        last: its last answer.
    """
    session = controller.session
    entry = models.by_name(controller.library, session.model)
    total = (entry.model.context_length or 0) if entry else 0
    if controller.answer is not None:
        used, context = controller.answer.used, controller.answer.context_length
    else:
        used, context = _recorded_usage(last) if last is not None else (0, 0)
    return BarState(
        model=printable((session.model or "").rpartition("/")[2]),
        missing=models.is_missing(controller.library, session.model),
        settings=shown_settings(session.settings, session.system),
        used=used,
        total=context or total,
    )


def _recorded_usage(answer: ChatMessage) -> tuple[int, int]:
    """Return the tokens of prompt and answer, and the context length; 0 if unknown."""

    def number(name: str) -> int:
        value = answer.usage.get(name)
        return value if isinstance(value, int) and 0 <= value < 10**12 else 0

    return number("prompt_tokens") + number("completion_tokens"), number("context_length")


def current_note(conditions: NoteConditions) -> tuple[str, str]:
    """Return the most important note and its style; empty for none."""
    if conditions.write_error is not None:
        return f"✗ {error_text(conditions.write_error)}", "$bad"
    if conditions.missing_model is not None:
        return f"✗ {error_text(missing_model_error(conditions.missing_model))}", "$bad"
    if conditions.editing:
        return "Editing a message: ⏎ sends it as a new branch, esc cancels.", "$accent"
    if conditions.unseen_below:
        return "↓ New text below. Press G to follow.", "$accent"
    if conditions.memory_tight:
        return "▲ Memory is tight: other programs may slow down.", "$attention"
    return "", ""
