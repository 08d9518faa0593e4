"""The form for where the server listens and which web pages may call it; checked while it is typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Static

from mlxk_tui.ui.widgets.form import Form


@dataclass(frozen=True)
class ListenAddress:
    """What the form holds, as it was typed."""

    host: str
    port: str
    origins: str


Check = Callable[[ListenAddress], tuple[bool, str]]
"""Tells whether it will do, and a sentence about it."""
_FIELDS = (
    ("host", "Host", "127.0.0.1", "127.0.0.1 is this machine alone"),
    ("port", "Port", "8000", "0 takes a free one"),
    ("origins", "Origins", "none: no web page may call", "such as https://chat.example.org; commas between"),
)


class ServerForm(Form[ListenAddress]):
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

    def __init__(self, present: ListenAddress, check: Check, *, field: str = "host") -> None:
        super().__init__("Where the server listens")
        self._present = present
        self._check = check
        self._field = field

    def fields(self) -> Iterable[Widget]:
        """Return the fields, each with its hint."""
        for name, label, placeholder, hint in _FIELDS:
            field = Input(
                getattr(self._present, name),
                placeholder=placeholder,
                id=f"server-{name}",
                compact=True,
                select_on_focus=False,
            )
            yield Horizontal(
                Static(label, classes="server-label", markup=False), field, classes="server-field"
            )
            yield Static(hint, classes="server-hint", markup=False)

    def on_mount(self) -> None:
        """Judge what stands there."""
        self.query_one(f"#server-{self._field}", Input).focus()
        self.say()

    def judge(self) -> tuple[bool, str]:
        """Tell whether the server can be set up so."""
        return self._check(self.answer())

    def answer(self) -> ListenAddress:
        """Return what stands in the fields."""
        return ListenAddress(*(self.query_one(f"#server-{name}", Input).value for name, *_ in _FIELDS))
