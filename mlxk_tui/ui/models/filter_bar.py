"""The filter input, with the number of matches and the problem of an invalid filter."""

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
    """Return as many examples as fit into `width` cells."""
    text = "name"
    for example in _EXAMPLES:
        if len(text) + 2 + len(example) > width:
            break
        text += f", {example}"
    return text if len(text) <= width else ""


class FilterInput(Input):
    """The input; enter and down return to the table, escape also clears the filter."""

    BINDING_GROUP_TITLE = "Models: filter"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave(True)", "Clear", id="filter.clear", tooltip="Clear and close the filter"),
        Binding("enter,down", "leave(False)", "To the table", key_display="⏎", id="filter.leave"),
        Binding("f12", "app.keys", "Help", key_display="F12", id="filter.help"),
    ]

    @dataclass
    class Closed(Message):
        """A key returned to the table; `clear`: the filter is to be cleared."""

        clear: bool

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Treat `/` and `?` as typed text: Textual (8.2.8) would show them as key bindings in the footer."""
        return key in {"slash", "question_mark"} or super().check_consume_key(key, character)

    def on_resize(self) -> None:
        self.placeholder = placeholder(self.scrollable_content_region.width)

    def action_leave(self, clear: bool) -> None:
        self.post_message(self.Closed(clear))


class FilterBar(Vertical):
    """The filter input between its prompt and the number of matches; hidden while it is empty."""

    input = getters.query_one(FilterInput)
    count = getters.query_one("#filter-answer", Static)
    problem_line = getters.query_one("#filter-problem", Static)

    @dataclass
    class Changed(Message):
        """The filter changed."""

        filter: Filter

    def __init__(self, text: str) -> None:
        super().__init__(id="filter-bar")
        self._initial = text
        self.filter = Filter()
        """The valid terms of the input."""
        self.problem: str | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="filter-line"):
            yield Static("/", id="filter-prompt", markup=False)
            yield FilterInput(self._initial, compact=True, select_on_focus=False)
            yield Static(id="filter-answer", markup=False)
        yield Static(id="filter-problem", markup=False)

    def on_mount(self) -> None:
        self.display = bool(self._initial)

    def open(self) -> None:
        """Show the bar and focus the input."""
        self.display = True
        self.input.focus()

    def clear(self) -> None:
        """Clear the input and hide the bar."""
        self.input.value = ""
        self.display = False

    def close(self) -> None:
        """Hide the bar if the input is empty."""
        self.display = bool(self.input.value.strip())

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.problem = None
        valid = []
        for word in event.value.split():
            try:
                parse(word)
            except OpError as error:  # noqa: PERF203 - an unfinished term must not disable the others
                self.problem = error_text(error)
            else:
                valid.append(word)
        self.filter = parse(" ".join(valid))
        self.post_message(self.Changed(self.filter))

    def show_count(self, text: str) -> None:
        """Show the number of matches and, on its own line, the problem."""
        self.count.update(Content.styled(text, "$muted"))
        self.problem_line.display = self.problem is not None
        if self.problem is not None:
            self.problem_line.update(Content.styled(self.problem, "$bad"))
