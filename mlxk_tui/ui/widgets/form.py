"""The base of every form: fields, a line with the validation result, and two buttons."""

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

from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen

T = TypeVar("T")


class Form(ModalScreen[T | None], OverlayScreen[T | None]):
    """Returns the filled-in values once they are valid, or None if cancelled.

    Enter in a field and the second button submit; the first button, a click outside and the key that a form
    binds to `cancel` cancel.

    Args:
        title: the title in the border; plain text.
        proceed: label of the button that submits.
        frame_id: id of the frame, for its own style.
    """

    problem = getters.query_one("#problem", Static)

    def __init__(self, title: str, *, proceed: str = "Save", frame_id: str | None = None) -> None:
        super().__init__()
        self._form_title = title
        self._proceed = proceed
        self._frame_id = frame_id

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id=self._frame_id) as frame:
            frame.border_title = Content(self._form_title)
            yield from self.fields()
            yield Static(id="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="safe", compact=True)
                yield Button(self._proceed, id="proceed", variant="primary", compact=True)

    def fields(self) -> Iterable[Widget]:
        """Return the widgets above the validation line."""
        raise NotImplementedError

    def validate(self) -> tuple[bool, str]:
        """Return whether the fields are valid, and a sentence about them (empty for none)."""
        raise NotImplementedError

    def result(self) -> T:
        """Return the filled-in values; called only while they are valid."""
        raise NotImplementedError

    def focus_invalid(self) -> None:
        """Focus the field that is invalid."""

    def show_validation(self) -> bool:
        """Show the result of `validate`; return whether the fields are valid."""
        valid, text = self.validate()
        glyph = "" if valid or not text else "✗ "
        self.problem.update(Content.styled(f"{glyph}{text}", "$muted" if valid else "$bad"))
        return valid

    def submit(self) -> None:
        """Dismiss the form with its result, or show what is invalid."""
        if self.show_validation():
            self.dismiss(self.result())
        else:
            self.focus_invalid()
            self.app.bell()

    def on_input_changed(self) -> None:
        self.show_validation()

    def on_input_submitted(self) -> None:
        self.submit()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "proceed":
            self.submit()
        else:
            self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """Cancel on a click outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        self.dismiss(None)
