"""The form for where the server listens and which web pages may call it; checked while it is typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import events, getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from mlxk_tui.widgets.transient import Transient


@dataclass(frozen=True)
class Place:
    """What the form holds, as it was typed."""

    host: str
    port: str
    origins: str


Check = Callable[[Place], tuple[bool, str]]
"""Tells whether it will do, and a sentence about it."""
_FIELDS = (
    ("host", "Host", "127.0.0.1", "127.0.0.1 is this machine alone"),
    ("port", "Port", "8000", "0 takes a free one"),
    ("origins", "Origins", "none: no web page may call", "such as https://chat.example.org; commas between"),
)


class ServerForm(ModalScreen[Place | None], Transient[Place | None]):
    """Answers with what was typed, or None.

    Args:
        present: what holds now.
        check: says while it is typed whether it will do.
        field: the field that has the focus at first.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="server_form.cancel"),
    ]
    AUTO_FOCUS = ""

    problem = getters.query_one("#problem", Static)

    def __init__(self, present: Place, check: Check, *, field: str = "host") -> None:
        super().__init__()
        self._present = present
        self._check = check
        self._field = field

    def compose(self) -> ComposeResult:
        """Lay out the form."""
        with Vertical(classes="dialog") as frame:
            frame.border_title = Content("Where the server listens")
            for name, label, placeholder, hint in _FIELDS:
                with Horizontal(classes="server-field"):
                    yield Static(label, classes="server-label", markup=False)
                    yield Input(
                        getattr(self._present, name),
                        placeholder=placeholder,
                        id=f"server-{name}",
                        compact=True,
                        select_on_focus=False,
                    )
                yield Static(hint, classes="server-hint", markup=False)
            yield Static(id="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="safe", compact=True)
                yield Button("Use", id="proceed", variant="primary", compact=True)

    def on_mount(self) -> None:
        """Judge what stands there."""
        self.query_one(f"#server-{self._field}", Input).focus()
        self._judge()

    @property
    def place(self) -> Place:
        """What stands in the fields."""
        return Place(*(self.query_one(f"#server-{name}", Input).value for name, *_ in _FIELDS))

    def _judge(self) -> bool:
        good, text = self._check(self.place)
        self.problem.update(Content.styled(text if good else f"✗ {text}", "$muted" if good else "$bad"))
        return good

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
            self.dismiss(self.place)
        else:
            self.app.bell()

    def on_click(self, event: events.Click) -> None:
        """Leave when the click is outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        """Leave."""
        self.dismiss(None)
