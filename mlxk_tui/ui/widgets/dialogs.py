"""Small modal screens: the base of every dialog, a confirmation, and the help."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Static

from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen
from mlxk_tui.ui.widgets.text import Part, lines, pad, wrap


class DialogList(VerticalScroll, can_focus=False):
    """A list in a dialog; the dialog's keys scroll it."""

    DEFAULT_CLASSES = "dialog-list"

    def __init__(self, rows: Sequence[Sequence[Part]]) -> None:
        super().__init__(Static(lines(rows)))

    def scroll(self, direction: str) -> None:
        """Scroll `up`, `down`, `page_up`, `page_down`, `home` or `end`."""
        scroll = {
            "up": self.scroll_up,
            "down": self.scroll_down,
            "page_up": self.scroll_page_up,
            "page_down": self.scroll_page_down,
            "home": self.scroll_home,
            "end": self.scroll_end,
        }[direction]
        scroll(animate=False)


class Dialog(ModalScreen[bool], OverlayScreen[bool]):
    """A dialog with two buttons; returns whether the second was pressed. The first, safe one has the focus.

    Args:
        title: the title in the border; plain text.
        proceed: label of the button that proceeds; None for a message with one button.
        cancel: label of the safe button.
        danger: whether proceeding destroys something.
    """

    BINDING_GROUP_TITLE = "Dialogs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "answer(False)", "Cancel", show=False, id="dialog.cancel"),
        Binding("left,h", "app.focus_previous", "Previous button", show=False, id="dialog.previous"),
        Binding("right,l", "app.focus_next", "Next button", show=False, id="dialog.next"),
        Binding("up,k", "scroll('up')", "Scroll up", show=False, id="dialog.up"),
        Binding("down,j", "scroll('down')", "Scroll down", show=False, id="dialog.down"),
        Binding("pageup,ctrl+u", "scroll('page_up')", "Page up", show=False, id="dialog.page_up"),
        Binding("pagedown,ctrl+d", "scroll('page_down')", "Page down", show=False, id="dialog.page_down"),
        Binding("home,g", "scroll('home')", "Top of the list", show=False, id="dialog.first"),
        Binding("end,G", "scroll('end')", "End of the list", show=False, id="dialog.last"),
    ]
    AUTO_FOCUS = "#safe"

    def __init__(
        self, title: str, *, proceed: str | None = None, cancel: str = "Cancel", danger: bool = False
    ) -> None:
        super().__init__()
        self._dialog_title = title
        self._proceed = proceed
        self._cancel = cancel
        self._danger = danger

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog -danger" if self._danger else "dialog") as frame:
            frame.border_title = Content(self._dialog_title)
            yield from self.body()
            with Horizontal(classes="buttons"):
                yield Button(self._cancel, id="safe", compact=True)
                if self._proceed is not None:
                    yield Button(
                        self._proceed,
                        id="proceed",
                        variant="error" if self._danger else "primary",
                        compact=True,
                    )

    def body(self) -> Iterable[Widget]:
        """Return the widgets above the buttons."""
        raise NotImplementedError

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "proceed")

    def on_click(self, event: events.Click) -> None:
        """Cancel on a click outside the frame."""
        if event.widget is self:
            self.action_answer(False)

    def action_scroll(self, direction: str) -> None:
        """Scroll the list, if there is one."""
        for box in self.query(DialogList):
            box.scroll(direction)

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class ConfirmDialog(Dialog):
    """Asks for confirmation in a sentence."""

    def __init__(self, title: str, text: str, *, proceed: str, cancel: str = "Cancel") -> None:
        super().__init__(title, proceed=proceed, cancel=cancel)
        self._text = text

    def body(self) -> Iterable[Widget]:
        yield Static(Content(self._text), classes="dialog-text")


HelpSection = tuple[str, Sequence[tuple[str, str]]]
"""A heading and its (keys, description) pairs."""


class HelpScreen(ModalScreen[None], OverlayScreen[None]):
    """Lists the key bindings that were active when it opened."""

    BINDING_GROUP_TITLE = "Help"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q", "dismiss", "Close", show=False, id="help.close"),
        Binding("down,j", "scroll(1)", "Down", show=False, id="help.down"),
        Binding("up,k", "scroll(-1)", "Up", show=False, id="help.up"),
        Binding("pagedown,ctrl+d", "page(1)", "Page down", show=False, id="help.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="help.page_up"),
    ]
    AUTO_FOCUS = None

    def __init__(self, title: str, sections: Sequence[HelpSection]) -> None:
        super().__init__()
        self._help_title = title
        self._sections = sections

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog help", can_focus=False) as frame:
            frame.border_title = Content(self._help_title)
            frame.border_subtitle = Content("esc close")
            yield Static(id="help-text")

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        width = self.query_one(VerticalScroll).scrollable_content_region.width
        if width > 0:
            self.query_one("#help-text", Static).update(self._content(width))

    def _content(self, width: int) -> Content:
        longest = max((cell_len(key) for _, keys in self._sections for key, _ in keys), default=0)
        column = min(longest, width // 4) + 2
        rows: list[list[Part]] = []
        for heading, keys in self._sections:
            if rows:
                rows.append([])
            rows.append([(heading, "$strong bold")])
            for key, description in keys:
                left, right = wrap(key, column - 2), wrap(description, width - column)
                for first, second in zip_longest(left, right, fillvalue=""):
                    rows.append([(pad(first, column), "$accent"), (second, "")])
        return lines(rows)

    def action_page(self, direction: int) -> None:
        box = self.query_one(VerticalScroll)
        box.scroll_relative(y=direction * max(1, box.scrollable_content_region.height - 1), animate=False)

    def action_scroll(self, by: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=by, animate=False)

    def on_click(self, event: events.Click) -> None:
        """Close on a click outside the frame."""
        if event.widget is self:
            self.dismiss()
