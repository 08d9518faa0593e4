"""The settings of the server: host, port and CORS origins, validated while typed."""

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
"""Returns whether the server can use the options, and a sentence about them (empty for none)."""
_FIELDS = (
    ("host", "Host", "127.0.0.1", "127.0.0.1: this machine only"),
    ("port", "Port", "8000", "0 = any free port"),
    ("origins", "Origins", "CORS off", "comma-separated, such as https://chat.example.org"),
)


class ServerForm(Form[ServerOptions]):
    """Returns the options with the values of the form, or None if cancelled.

    Args:
        options: the current options; those without a field stay the same.
        check: validates the options while they are typed.
        field: the field that has the focus first.
    """

    BINDING_GROUP_TITLE = "Server: settings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="server_form.cancel"),
    ]
    AUTO_FOCUS = ""

    def __init__(self, options: ServerOptions, check: Check, *, field: str = "host") -> None:
        super().__init__("Server settings")
        self._options = options
        self._check = check
        self._field = field

    def fields(self) -> Iterable[Widget]:
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
        self.query_one(f"#server-{self._field}", Input).focus()
        self.show_validation()

    def validate(self) -> tuple[bool, str]:
        try:
            return self._check(self.result())
        except OpError as error:
            return False, error_text(error)

    def result(self) -> ServerOptions:
        """Return the options with the values of the form.

        Raises:
            OpError: `validation_error`.
        """
        host, port, origins = (self.query_one(f"#server-{name}", Input).value for name, *_ in _FIELDS)
        return replace(
            self._options, host=parse_host(host), port=parse_port(port), origins=parse_origins(origins)
        )
