"""The form for where the server listens and which web pages may call it; checked while it is typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Input, Static

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.server.options import ServerOptions, parse_host, parse_origins, parse_port
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.form import Form

Check = Callable[[ServerOptions], tuple[bool, str]]
"""Tells whether the server can be configured so, and a sentence about it, empty for none."""
_FIELDS = (
    ("host", "Host", "127.0.0.1", "127.0.0.1 is this machine alone"),
    ("port", "Port", "8000", "0 takes a free one"),
    ("origins", "Origins", "none: no web page may call", "such as https://chat.example.org; commas between"),
)


class ServerForm(Form[ServerOptions]):
    """Answers with the options that were filled in, or None.

    Args:
        options: the present ones; those without a field stay.
        check: what else has to hold.
        field: the field that has the focus at first.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="server_form.cancel"),
    ]
    AUTO_FOCUS = ""

    def __init__(self, options: ServerOptions, check: Check, *, field: str = "host") -> None:
        super().__init__("Where the server listens")
        self._options = options
        self._check = check
        self._field = field

    def fields(self) -> Iterable[Widget]:
        """Return the fields, each with its hint."""
        options = self._options
        values = {"host": options.host, "port": str(options.port), "origins": ", ".join(options.origins)}
        for name, label, placeholder, hint in _FIELDS:
            field = Input(
                values[name],
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
        """Tell whether the server can be configured so."""
        try:
            return self._check(self.answer())
        except OpError as error:
            return False, error_text(error)

    def answer(self) -> ServerOptions:
        """Return the options with what stands in the fields.

        Raises:
            OpError: `validation_error`.
        """
        host, port, origins = (self.query_one(f"#server-{name}", Input).value for name, *_ in _FIELDS)
        return replace(
            self._options, host=parse_host(host), port=parse_port(port), origins=parse_origins(origins)
        )
