"""The form for how a chat is answered: system prompt, sampling, limit, cache, draft; checked while typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    """One value of the form."""

    name: str
    label: str
    hint: str
    whole: bool = False
    unset: str = "the model's own"
    words: bool = False
    """Whether it is a text rather than a number."""


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
    Field("kv_bits", "KV cache bits", "4 or 8: less memory", whole=True, unset="full precision"),
    Field(
        "draft_model", "draft model", "", unset="none; a small one of its family guesses ahead", words=True
    ),
)
"""The values; an empty one is left to the model."""

Check = Callable[[Mapping[str, Any]], object]
"""Raises OpError where values cannot be used."""


def parsed(texts: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the values that were typed, and what is wrong with the first one that is no number."""
    values: dict[str, Any] = {}
    for field in FIELDS:
        text = texts.get(field.name, "").strip()
        if field.words and text:
            values[field.name] = text
        if field.words or not text:
            continue
        text = text.replace(",", ".")
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


class SettingsDialog(Form[ChatSettings]):
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

    def __init__(self, present: ChatSettings, check: Check, model: str) -> None:
        super().__init__("How this chat is answered", frame_id="chat-settings")
        self._present = present
        self._check = check
        self._model = model

    def fields(self) -> Iterable[Widget]:
        """Return the system prompt and the settings."""
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
                    placeholder=field.unset,
                    id=f"set-{field.name}",
                    compact=True,
                    select_on_focus=False,
                ),
                *([Static(field.hint, classes="setting-hint", markup=False)] if field.hint else []),
                classes="setting",
            )

    def on_mount(self) -> None:
        """Judge what stands there."""
        self.say()

    def judge(self) -> tuple[bool, str]:
        """Tell whether the values can be used."""
        values, wrong = parsed(self._texts())
        if not wrong:
            try:
                self._check(values)
            except OpError as error:
                wrong = error_text(error)
        return not wrong, sentence(wrong) if wrong else "What is empty is left to the model."

    def answer(self) -> ChatSettings:
        """Return the settings."""
        return ChatSettings(self.query_one("#system", TextArea).text, parsed(self._texts())[0])

    def _texts(self) -> dict[str, str]:
        return {field.name: self.query_one(f"#set-{field.name}", Input).value for field in FIELDS}


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
