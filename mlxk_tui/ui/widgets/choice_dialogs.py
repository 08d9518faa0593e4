"""What the Chat pane asks: a line of text, or one of a list."""

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
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, cut, pad
from mlxk_tui.ui.widgets.transient import Transient

Check = Callable[[str], tuple[bool, str]]
"""Tells of a text whether it will do, and a sentence about it (empty for none)."""


def anything(text: str) -> tuple[bool, str]:
    """Take every text."""
    del text
    return True, ""


class LineDialog(Form[str]):
    """Asks for one line; answers with it, or None.

    Args:
        title: stands in the frame; plain text.
        about: a sentence above the field.
        value: what stands there at first.
        proceed: label of the button.
        check: says while it is typed whether it will do.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="line.cancel"),
    ]
    AUTO_FOCUS = "#line"

    field = getters.query_one("#line", Input)

    def __init__(self, title: str, about: str, value: str, *, proceed: str, check: Check = anything) -> None:
        super().__init__(title, proceed=proceed)
        self._about = about
        self._value = value
        self._check = check

    def fields(self) -> Iterable[Widget]:
        """Return the sentence and the field."""
        yield Static(Content.styled(self._about, "$muted"), classes="dialog-text")
        yield Input(self._value, id="line", compact=True, select_on_focus=False)

    def judge(self) -> tuple[bool, str]:
        """Tell whether the line will do."""
        return self._check(self.field.value)

    def answer(self) -> str:
        """Return the line."""
        return self.field.value

    def refused(self) -> None:
        """Go back to the field."""
        self.field.focus()


@dataclass(frozen=True)
class Option:
    """One line to choose."""

    key: str
    text: str
    """Safe to show."""
    about: str = ""
    """Stands at the right; safe to show."""
    style: str = "muted"
    """A component class of RowList for `about`."""


class OptionRows(RowList):
    """Options, one line each."""

    def __init__(self) -> None:
        super().__init__(id="options")
        self._options: dict[str, Option] = {}

    def show(self, options: Sequence[Option]) -> None:
        """Show options."""
        self._options = {option.key: option for option in options}
        self.set_rows([ListRow(key) for key in self._options])

    def row_line(self, row: ListRow, number: int, width: int) -> Sequence[Part]:
        """Draw an option."""
        del number
        option = self._options[row.key]
        about = cut(option.about, width // 2)
        room = width - cell_len(about) - 2
        return [(pad(option.text, room), ""), (f"  {about}", option.style)]


class OptionFilter(Input):
    """The words that an option must hold; the arrows move in the list below."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "screen.step(1)", "Down", show=False, id="choice.down"),
        Binding("up", "screen.step(-1)", "Up", show=False, id="choice.up"),
        Binding("enter", "screen.choose", "Choose", show=False, id="choice.choose"),
    ]

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Keep the keys that are typed out of the footer."""
        return key in {"slash", "question_mark"} or super().check_consume_key(key, character)


class ChoiceDialog(ModalScreen[str | None], Transient[str | None]):
    """Asks for one of a list; answers with its key, or None.

    Args:
        title: stands in the frame; plain text.
        options: what there is.
        current: the key that the cursor stands on at first.
        words: whether a field for words to look for stands above the list.
        empty: a sentence for where nothing is there.
    """

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
        words: bool = False,
        empty: str = "",
    ) -> None:
        super().__init__()
        self._dialog_title = title
        self._options = options
        self._current = current
        self._words = words
        self._empty = empty

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        with Vertical(classes="dialog choice") as frame:
            frame.border_title = Content(self._dialog_title)
            frame.border_subtitle = Content("⏎ choose · esc cancel")
            if self._words:
                yield OptionFilter(placeholder="part of a name", compact=True, id="choice-words")
            yield OptionRows()
            yield Static(id="choice-note", markup=False)

    def on_mount(self) -> None:
        """Show everything."""
        if self._words:
            self.query_one(OptionFilter).focus()
        self._show(self._options)
        self.rows.move_to(self._current)

    def _show(self, options: Sequence[Option]) -> None:
        self.rows.show(options)
        self.rows.styles.height = max(1, len(self._options))
        text = "" if options else self._empty if not self._options else "No name holds these words."
        self.note.display = bool(text)
        self.note.update(Content.styled(text, "$muted"))

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what holds the words."""
        words = event.value.casefold().split()
        self._show([one for one in self._options if all(word in one.text.casefold() for word in words)])

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Answer."""
        event.stop()
        self.dismiss(event.key)

    def action_choose(self) -> None:
        """Answer with the option under the cursor."""
        if (key := self.rows.cursor_key) is not None:
            self.dismiss(key)

    def action_step(self, way: int) -> None:
        """Move in the list."""
        self.rows.action_cursor_move(way)

    def on_click(self, event: events.Click) -> None:
        """Leave when the click is outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        """Leave."""
        self.dismiss(None)
