"""A request, the keys and the snippets as a screen of their own, where the pane shows no tabs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size

from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.ui.server import keys, server_actions as acts
from mlxk_tui.ui.server.side_panel import KEYS, REQUEST, ServerSide
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyLine
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.transient import Transient

_GROW_SECONDS = 0.25


class ServerScreen(Transient[None]):
    """The tabs, over the whole screen.

    Args:
        context: what every pane is given.
        tab: the tab to open.
        entry: the request of the first tab.
        below: the pane's own tabs: this screen goes once they can be seen again.
        hidden: tells whether they cannot be seen in a terminal of a size.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Back", key_display="esc", id="server_screen.back"),
        keys.LEFT,
        keys.RIGHT,
        Binding("c", "copy", "Copy", id="server_screen.copy", tooltip="Copy what the open tab shows"),
        Binding(
            "y",
            "copy_address",
            "Copy URL",
            show=False,
            id="server_screen.copy_address",
            tooltip="Copy the address",
        ),
        keys.NEW_KEY,
        Binding(
            "d",
            "drop_key",
            "Delete key",
            id="server_screen.delete_key",
            tooltip="Delete the selected API key",
        ),
        Binding(
            "v", "reveal", "Show keys", id="server_screen.reveal", tooltip="Show the API keys, or hide them"
        ),
        keys.COPY_KEY,
    ]
    AUTO_FOCUS = None

    side = getters.query_one(ServerSide)

    def __init__(
        self,
        context: Context,
        tab: str,
        entry: RequestEntry | None,
        below: ServerSide,
        hidden: Callable[[Size], bool],
    ) -> None:
        super().__init__()
        self.context = context
        self._tab = tab
        self._entry = entry
        self._below = below
        self._hidden = hidden

    def compose(self) -> ComposeResult:
        """Lay out the tabs."""
        side = ServerSide(tab=self._tab, id="server-side")
        side.add_class("panel")
        yield side
        yield TaskBar(self.context.tasks, stop_key="^c")  # escape leaves this screen
        yield KeyLine()

    def on_mount(self) -> None:
        """Show what there is and follow it."""
        self._draw()
        self.side.take_focus()
        self.subscribe(self.context.server.changed, lambda _: self._draw())
        self.subscribe(self.context.chats.engine_changed, lambda _: self._draw())
        if self._entry is not None and self._entry.live:
            self.set_interval(_GROW_SECONDS, self._draw)

    def _draw(self) -> None:
        if self.is_attached:
            self.side.show(acts.shown(self.context, self._entry))
            self.refresh_bindings()

    def on_server_side_opened(self) -> None:
        """Draw the keys that work in this tab."""
        self.refresh_bindings()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Show the keys."""
        event.stop()
        self.side.reveal()

    def on_screen_resume(self) -> None:
        """Leave when that was due while a dialog lay over this screen."""
        self.on_resize()

    def on_resize(self) -> None:
        """Make way for the tabs below once the terminal is large enough."""
        if not self._hidden(self.size):
            self._below.open(self.side.tab)
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave out what is not of this tab, dim what is not possible now."""
        del parameters
        if action in acts.OF_KEYS and self.is_mounted and self.side.tab != KEYS and action != "copy_key":
            return False
        if action == "copy" and self.is_mounted and self.side.tab == REQUEST and self._entry is None:
            return None
        side = self.side if self.is_mounted else None
        return None if acts.why_not(self.context, action, side) else True

    def action_tab(self, by: int) -> None:
        """Open the tab beside the open one."""
        self.side.step(by)

    def action_copy(self) -> None:
        """Copy what the open tab shows."""
        acts.copy_shown(self, self.context, self.side, self._entry)

    def action_copy_address(self) -> None:
        """Copy the address."""
        acts.copy_address(self, self.context)

    def action_copy_key(self) -> None:
        """Copy the selected key."""
        acts.copy_key(self, self.context, self.side.key_name)

    def action_new_key(self) -> None:
        """Make a key."""
        acts.new_key(self, self.context, self.side)

    def action_drop_key(self) -> None:
        """Delete the selected key."""
        acts.drop_key(self, self.context, self.side.key_name)

    def action_reveal(self) -> None:
        """Show the keys, or hide them."""
        self.side.reveal()
