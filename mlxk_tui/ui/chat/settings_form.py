"""The settings of a chat: system prompt, sampling, token limit, KV cache and draft model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation.request import ChatSettings
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.form import Form
from mlxk_tui.ui.widgets.text import sentence


@dataclass(frozen=True)
class Field:
    """An input of the form."""

    name: str
    label: str
    hint: str
    integer: bool = False
    default: str = ""
    """Placeholder if the model recommends no value."""
    is_text: bool = False
    """Whether it is a text and not a number."""


FIELDS = (
    Field("temperature", "Temperature", "0 (deterministic) – 2", default="default 0"),
    Field("top_p", "Top p", "0 – 1", default="off"),
    Field("top_k", "Top k", "0 = all tokens", integer=True, default="off"),
    Field("min_p", "Min p", "0 – 1", default="off"),
    Field("repetition_penalty", "Repetition", "1 (off) – 2", default="off"),
    Field("presence_penalty", "Presence", "-2 – 2", default="off"),
    Field("frequency_penalty", "Frequency", "-2 – 2", default="off"),
    Field("max_tokens", "Max tokens", "per answer", integer=True, default="up to the context"),
    Field("seed", "Seed", "for repeatable answers", integer=True, default="random"),
    Field("kv_bits", "KV cache bits", "4 or 8 (saves memory)", integer=True, default="full precision"),
    Field(
        "draft_model", "Draft model", "", default="none (a smaller model of the same family)", is_text=True
    ),
)

Check = Callable[[Mapping[str, Any]], object]
"""Raises OpError if values are invalid."""


def parsed(texts: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the typed values, and the error of the first one that is not a number (empty for none)."""
    values: dict[str, Any] = {}
    for field in FIELDS:
        text = texts.get(field.name, "").strip()
        if field.is_text and text:
            values[field.name] = text
        if field.is_text or not text:
            continue
        text = text.replace(",", ".")
        try:
            values[field.name] = int(text) if field.integer else float(text)
        except ValueError:
            kind = "a whole number" if field.integer else "a number"
            return values, f"{field.label}: '{printable(text[:20])}' is not {kind}."
        if field.name == "max_tokens" and values[field.name] < 1:
            return values, "Max tokens: at least 1."
    return values, ""


class SystemPrompt(TextArea):
    """The input of the system prompt; tab moves to the next field."""

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


class SettingsDialog(Form[ChatSettings]):
    """Returns the settings, or None if cancelled.

    Args:
        present: the current settings.
        check: validates the values.
        load_defaults: returns the sampling values that the model recommends, which apply to blank inputs.
    """

    BINDING_GROUP_TITLE = "Chat: settings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="chat_settings.cancel"),
    ]
    AUTO_FOCUS = "#system"

    def __init__(
        self, present: ChatSettings, check: Check, load_defaults: Callable[[], Awaitable[Mapping[str, Any]]]
    ) -> None:
        super().__init__("Chat settings", frame_id="chat-settings")
        self._present = present
        self._check = check
        self._load_defaults = load_defaults

    def fields(self) -> Iterable[Widget]:
        yield VerticalScroll(*self._settings(), can_focus=False, id="chat-settings-fields")

    def _settings(self) -> Iterable[Widget]:
        yield Static(Content.styled("System prompt", "$muted"))
        yield SystemPrompt(self._present.system)
        for field in FIELDS:
            value = self._present.values.get(field.name)
            yield Horizontal(
                Static(field.label, classes="setting-label", markup=False),
                Input(
                    "" if value is None else _text(value),
                    placeholder=field.default,
                    id=f"set-{field.name}",
                    compact=True,
                    select_on_focus=False,
                ),
                *([Static(field.hint, classes="setting-hint", markup=False)] if field.hint else []),
                classes="setting",
            )

    def on_mount(self) -> None:
        self.show_validation()
        self.run_worker(self._show_defaults(), exit_on_error=False)

    async def _show_defaults(self) -> None:
        """Show the model's defaults as placeholders; reading them must not delay the form."""
        defaults = await self._load_defaults()
        for field in FIELDS:
            if (value := defaults.get(field.name)) is not None:
                self.query_one(f"#set-{field.name}", Input).placeholder = f"default {_text(value)}"

    def validate(self) -> tuple[bool, str]:
        values, error = parsed(self._texts())
        if not error:
            try:
                self._check(values)
            except OpError as invalid:
                error = error_text(invalid)
        return not error, sentence(error) if error else "Blank = model default."

    def result(self) -> ChatSettings:
        return ChatSettings(self.query_one("#system", TextArea).text, parsed(self._texts())[0])

    def _texts(self) -> dict[str, str]:
        return {field.name: self.query_one(f"#set-{field.name}", Input).value for field in FIELDS}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
