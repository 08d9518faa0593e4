"""The frame of every form: fields, a line that says what is wrong, two buttons, and how it is left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from textual import events, getters
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Static

from mlxk_tui.ui.widgets.transient import Transient

T = TypeVar("T")


class Form(ModalScreen[T | None], Transient[T | None]):
    """Answers with what was filled in once that will do, or with None.

    Enter in a field and the second button send it; the first button and a click outside leave it, as
    does the key that a form binds to `cancel`.

    Args:
        title: stands in the frame; plain text.
        proceed: label of the button that sends it.
        frame_id: the frame's id, for a style of its own.
    """

    problem = getters.query_one("#problem", Static)

    def __init__(self, title: str, *, proceed: str = "Use", frame_id: str | None = None) -> None:
        super().__init__()
        self._form_title = title
        self._proceed = proceed
        self._frame_id = frame_id

    def compose(self) -> ComposeResult:
        """Lay out the frame, its fields and the buttons."""
        with Vertical(classes="dialog", id=self._frame_id) as frame:
            frame.border_title = Content(self._form_title)
            yield from self.fields()
            yield Static(id="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="safe", compact=True)
                yield Button(self._proceed, id="proceed", variant="primary", compact=True)

    def fields(self) -> Iterable[Widget]:
        """Return what stands above the line that says what is wrong."""
        raise NotImplementedError

    def judge(self) -> tuple[bool, str]:
        """Tell whether what stands there will do, and a sentence about it, empty for none."""
        raise NotImplementedError

    def answer(self) -> T:
        """Return what was filled in; asked for only where it will do."""
        raise NotImplementedError

    def refused(self) -> None:
        """Lead back to the field that is wrong."""

    def say(self) -> bool:
        """Show what `judge` says; return whether it will do."""
        good, text = self.judge()
        glyph = "" if good or not text else "✗ "
        self.problem.update(Content.styled(f"{glyph}{text}", "$muted" if good else "$bad"))
        return good

    def submit(self) -> None:
        """Send it, or say what is wrong."""
        if self.say():
            self.dismiss(self.answer())
        else:
            self.refused()
            self.app.bell()

    def on_input_changed(self) -> None:
        """Say at once what is wrong."""
        self.say()

    def on_input_submitted(self) -> None:
        """Send it."""
        self.submit()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Send it, or leave."""
        if event.button.id == "proceed":
            self.submit()
        else:
            self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """Leave when the click is outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        """Leave."""
        self.dismiss(None)
