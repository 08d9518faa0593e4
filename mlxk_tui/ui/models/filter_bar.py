"""The line in which a filter is typed; it says at once how many match, or what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from mlxk_tui.ops.catalog.filters import Filter, parse
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ui.widgets.error_text import error_text

_EXAMPLES = (
    "type:chat",
    "health:bad",
    "size>10GB",
    "quant:4bit",
    "fit:tight",
    "org:qwen",
    "runs:yes",
    "context>=32k",
)


def placeholder(width: int) -> str:
    """Return as many whole examples as fit into `width` cells."""
    text = "part of a name"
    for example in _EXAMPLES:
        if len(text) + 2 + len(example) > width:
            break
        text += f", {example}"
    return text if len(text) <= width else ""


class FilterInput(Input):
    """The input; its keys leave it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave(True)", "Clear", id="filter.clear", tooltip="Clear the filter and leave it"),
        Binding("enter,down", "leave(False)", "To the list", key_display="⏎", id="filter.leave"),
        Binding("f12", "app.keys", "Help", key_display="F12", id="filter.help"),
    ]

    @dataclass
    class Left(Message):
        """The input was left."""

        clear: bool

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Keep the keys that are typed out of the footer; Textual (8.2.8) does not know these as letters."""
        return key in {"slash", "question_mark"} or super().check_consume_key(key, character)

    def on_resize(self) -> None:
        """Show the examples that fit."""
        self.placeholder = placeholder(self.scrollable_content_region.width)

    def action_leave(self, clear: bool) -> None:
        """Go back to the list."""
        self.post_message(self.Left(clear))


class FilterBar(Vertical):
    """Prompt, input and answer."""

    input = getters.query_one(FilterInput)
    answer = getters.query_one("#filter-answer", Static)
    trouble = getters.query_one("#filter-problem", Static)

    @dataclass
    class Changed(Message):
        """There is another valid filter."""

        filter: Filter

    def __init__(self, text: str) -> None:
        super().__init__(id="filter-bar")
        self._first = text
        self.filter = Filter()
        self.problem: str | None = None

    def compose(self) -> ComposeResult:
        """Lay out the line."""
        with Horizontal(id="filter-line"):
            yield Static("/", id="filter-prompt", markup=False)
            yield FilterInput(self._first, compact=True, select_on_focus=False)
            yield Static(id="filter-answer", markup=False)
        yield Static(id="filter-problem", markup=False)

    def on_mount(self) -> None:
        """Hide an empty line."""
        self.display = bool(self._first)

    def open(self) -> None:
        """Show the line and go into it."""
        self.display = True
        self.input.focus()

    def clear(self) -> None:
        """Empty the line and hide it."""
        self.input.value = ""
        self.display = False

    def close(self) -> None:
        """Hide the line where it is empty."""
        self.display = bool(self.input.value.strip())

    def on_input_changed(self, event: Input.Changed) -> None:
        """Parse what is there."""
        event.stop()
        self.problem = None
        good = []
        for word in event.value.split():
            try:
                parse(word)
            except OpError as error:  # noqa: PERF203 - a half typed term leaves the others at work
                self.problem = error_text(error)
            else:
                good.append(word)
        self.filter = parse(" ".join(good))
        self.post_message(self.Changed(self.filter))

    def draw_answer(self, counted: str) -> None:
        """Show how many match, and on a line of its own what is wrong."""
        self.answer.update(Content.styled(counted, "$muted"))
        self.trouble.display = self.problem is not None
        if self.problem is not None:
            self.trouble.update(Content.styled(self.problem, "$bad"))
