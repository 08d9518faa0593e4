"""The form for how a chat is answered: system prompt, sampling, limit; checked while it is typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events, getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static, TextArea

from mlxk_tui.ops.errors import OpError
from mlxk_tui.ops.format import printable
from mlxk_tui.widgets.text import sentence
from mlxk_tui.widgets.transient import Transient


@dataclass(frozen=True)
class Field:
    """One value of the form."""

    name: str
    label: str
    hint: str
    whole: bool = False
    unset: str = "the model's own"


FIELDS = (
    Field("temperature", "temperature", "0 always the likeliest … 2"),
    Field("top_p", "top p", "0 … 1"),
    Field("top_k", "top k", "0 all tokens", whole=True),
    Field("min_p", "min p", "0 … 1"),
    Field("repetition_penalty", "repetition", "1 none … 2"),
    Field("presence_penalty", "presence", "-2 … 2"),
    Field("frequency_penalty", "frequency", "-2 … 2"),
    Field("max_tokens", "most tokens", "in one answer", whole=True, unset="as many as fit"),
    Field("seed", "seed", "makes answers repeatable", whole=True, unset="another each time"),
)
"""The values; an empty one is left to the model."""

Check = Callable[[Mapping[str, Any]], object]
"""Raises OpError where values cannot be used."""


@dataclass(frozen=True)
class ChatSettings:
    """What the form holds."""

    system: str
    values: Mapping[str, Any]


def parsed(texts: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the values that were typed, and what is wrong with the first one that is no number."""
    values: dict[str, Any] = {}
    for field in FIELDS:
        text = texts.get(field.name, "").strip().replace(",", ".")
        if not text:
            continue
        try:
            values[field.name] = int(text) if field.whole else float(text)
        except ValueError:
            kind = "a whole number" if field.whole else "a number"
            return values, f"{field.label}: '{printable(text[:20])}' is not {kind}."
        if field.name == "max_tokens" and values[field.name] < 1:
            return values, "most tokens: at least 1."
    return values, ""


class SystemPrompt(TextArea):
    """The system prompt; tab goes on to the next field."""

    def __init__(self, text: str) -> None:
        super().__init__(
            text,
            id="system",
            compact=True,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            tab_behavior="focus",
        )


class SettingsDialog(ModalScreen[ChatSettings | None], Transient[ChatSettings | None]):
    """Answers with the settings, or None where nothing is to change.

    Args:
        present: what holds now.
        check: refuses values that cannot be used.
        model: the model's name, safe to show.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="chat_settings.cancel"),
    ]
    AUTO_FOCUS = "#system"

    problem = getters.query_one("#problem", Static)

    def __init__(self, present: ChatSettings, check: Check, model: str) -> None:
        super().__init__()
        self._present = present
        self._check = check
        self._model = model

    def compose(self) -> ComposeResult:
        """Lay out the form."""
        with Vertical(classes="dialog", id="chat-settings") as frame:
            frame.border_title = Content("How this chat is answered")
            with VerticalScroll(can_focus=False, id="chat-settings-fields"):
                yield Static(Content.styled("System prompt", "$muted"))
                yield SystemPrompt(self._present.system)
                for field in FIELDS:
                    value = self._present.values.get(field.name)
                    with Horizontal(classes="setting"):
                        yield Static(field.label, classes="setting-label", markup=False)
                        yield Input(
                            "" if value is None else _text(value),
                            placeholder=field.unset,
                            id=f"set-{field.name}",
                            compact=True,
                            select_on_focus=False,
                        )
                        yield Static(field.hint, classes="setting-hint", markup=False)
            yield Static(id="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="safe", compact=True)
                yield Button("Use", id="proceed", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Judge what stands there."""
        self._judge()

    def _texts(self) -> dict[str, str]:
        return {field.name: self.query_one(f"#set-{field.name}", Input).value for field in FIELDS}

    def _judge(self) -> str:
        values, wrong = parsed(self._texts())
        if not wrong:
            try:
                self._check(values)
            except OpError as error:
                wrong = error.message
        if wrong:
            self.problem.update(Content.styled(f"✗ {sentence(wrong)}", "$bad"))
        else:
            self.problem.update(Content.styled("What is empty is left to the model.", "$muted"))
        return wrong

    def on_input_changed(self) -> None:
        """Say at once what is wrong."""
        self._judge()

    def on_input_submitted(self) -> None:
        """Go."""
        self._submit()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Go, or not."""
        if event.button.id == "proceed":
            self._submit()
        else:
            self.dismiss(None)

    def _submit(self) -> None:
        if self._judge():
            self.app.bell()
            return
        system = self.query_one("#system", TextArea).text
        self.dismiss(ChatSettings(system, parsed(self._texts())[0]))

    def on_click(self, event: events.Click) -> None:
        """Leave when the click is outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        """Leave."""
        self.dismiss(None)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
