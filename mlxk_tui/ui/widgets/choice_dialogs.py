"""Dialogs that ask for a line of text, or for one option of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual import events, getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static

from mlxk_tui.ui.widgets.form import Form
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, cut, pad

Check = Callable[[str], tuple[bool, str]]
"""Returns whether a text is valid, and a sentence to show below it (empty for none)."""


def accept_any(text: str) -> tuple[bool, str]:
    """Accept every text."""
    del text
    return True, ""


class InputDialog(Form[str]):
    """Returns a line of text, or None if cancelled.

    Args:
        title: the title in the border; plain text.
        prompt: a sentence above the input.
        value: the initial text.
        proceed: label of the button that submits.
        check: validates the text while it is typed.
    """

    BINDING_GROUP_TITLE = "Text dialog"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="line.cancel"),
    ]
    AUTO_FOCUS = "#line"

    field = getters.query_one("#line", Input)

    def __init__(
        self, title: str, prompt: str, value: str, *, proceed: str, check: Check = accept_any
    ) -> None:
        super().__init__(title, proceed=proceed)
        self._prompt = prompt
        self._value = value
        self._check = check

    def fields(self) -> Iterable[Widget]:
        yield Static(Content.styled(self._prompt, "$muted"), classes="dialog-text")
        yield Input(self._value, id="line", compact=True, select_on_focus=False)

    def validate(self) -> tuple[bool, str]:
        return self._check(self.field.value)

    def result(self) -> str:
        return self.field.value

    def focus_invalid(self) -> None:
        self.field.focus()


@dataclass(frozen=True)
class Option:
    """One option of a list."""

    key: str
    text: str
    """Safe to show."""
    detail: str = ""
    """Right-aligned text; safe to show."""
    style: str = "muted"
    """A component class of RowList for `detail`."""


class OptionRows(RowList):
    """Options, one line each."""

    def __init__(self) -> None:
        super().__init__(id="options")
        self._options: dict[str, Option] = {}

    def show(self, options: Sequence[Option]) -> None:
        self._options = {option.key: option for option in options}
        self.set_rows([ListRow(key) for key in self._options])

    def row_line(self, row: ListRow, number: int, width: int) -> Sequence[Part]:
        del number
        option = self._options[row.key]
        detail = cut(option.detail, width // 2)
        room = width - cell_len(detail) - 2
        return [(pad(option.text, room), ""), (f"  {detail}", option.style)]


class OptionFilter(Input):
    """Filters the options by words; the arrow keys move in the list below it."""

    BINDING_GROUP_TITLE = "Choice dialog: filter"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "screen.step(1)", "Down", show=False, id="choice.down"),
        Binding("up", "screen.step(-1)", "Up", show=False, id="choice.up"),
        Binding("enter", "screen.choose", "Choose", show=False, id="choice.choose"),
    ]

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Treat `/` and `?` as typed text: Textual (8.2.8) would show them as key bindings in the footer."""
        return key in {"slash", "question_mark"} or super().check_consume_key(key, character)


class ChoiceDialog(ModalScreen[str | None], OverlayScreen[str | None]):
    """Returns the key of the selected option, or None if cancelled.

    Args:
        title: the title in the border; plain text.
        options: the options, in order.
        current: key of the option that is highlighted first.
        searchable: whether there is a filter input above the list.
        empty: the sentence that is shown if there are no options.
    """

    BINDING_GROUP_TITLE = "Choice dialog"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="choice.cancel"),
    ]

    AUTO_FOCUS = "OptionRows"

    rows = getters.query_one(OptionRows)
    note = getters.query_one("#choice-note", Static)

    def __init__(
        self,
        title: str,
        options: Sequence[Option],
        *,
        current: str = "",
        searchable: bool = False,
        empty: str = "",
    ) -> None:
        super().__init__()
        self._dialog_title = title
        self._options = options
        self._current = current
        self._searchable = searchable
        self._empty = empty

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog choice") as frame:
            frame.border_title = Content(self._dialog_title)
            frame.border_subtitle = Content("⏎ choose · esc cancel")
            if self._searchable:
                yield OptionFilter(placeholder="Filter by name", compact=True, id="choice-words")
            yield OptionRows()
            yield Static(id="choice-note", markup=False)

    def on_mount(self) -> None:
        if self._searchable:
            self.query_one(OptionFilter).focus()
        self._show(self._options)
        self.rows.move_to(self._current)

    def _show(self, options: Sequence[Option]) -> None:
        self.rows.show(options)
        self.rows.styles.height = max(1, len(self._options))
        text = "" if options else self._empty if not self._options else "No matches."
        self.note.display = bool(text)
        self.note.update(Content.styled(text, "$muted"))

    def on_input_changed(self, event: Input.Changed) -> None:
        words = event.value.casefold().split()
        self._show([one for one in self._options if all(word in one.text.casefold() for word in words)])

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        event.stop()
        self.dismiss(event.key)

    def action_choose(self) -> None:
        if (key := self.rows.cursor_key) is not None:
            self.dismiss(key)

    def action_step(self, by: int) -> None:
        self.rows.action_cursor_move(by)

    def on_click(self, event: events.Click) -> None:
        """Cancel on a click outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        self.dismiss(None)
