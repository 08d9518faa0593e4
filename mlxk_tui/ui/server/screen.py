"""A request, the API keys and the snippets as a full screen, for terminals without room for the tabs."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size

from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.ui.server import keys, server_actions
from mlxk_tui.ui.server.side_panel import KEYS, REQUEST, SidePanel
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyFooter
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen
from mlxk_tui.ui.widgets.row_list import RowList

_LIVE_SECONDS = 0.25


class ServerScreen(OverlayScreen[None]):
    """The tabs on the full screen.

    Args:
        context: the app's services.
        tab: id of the tab to open.
        entry: the request of the first tab.
        below: the tabs in the pane below: this screen closes once they are visible.
        hidden: returns whether those are hidden in a terminal of a size.
    """

    BINDING_GROUP_TITLE = "Server: tabs on a small terminal"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Back", key_display="esc", id="server_screen.back"),
        keys.LEFT,
        keys.RIGHT,
        Binding("c", "copy", "Copy", id="server_screen.copy", tooltip="Copy the content of the open tab"),
        Binding(
            "y",
            "copy_address",
            "Copy URL",
            show=False,
            id="server_screen.copy_address",
            tooltip="Copy the base URL",
        ),
        keys.NEW_KEY,
        Binding(
            "d",
            "drop_key",
            "Delete key",
            id="server_screen.delete_key",
            tooltip="Delete the selected API key",
        ),
        Binding("v", "reveal", "Show keys", id="server_screen.reveal", tooltip="Show or hide the API keys"),
        keys.COPY_KEY,
    ]
    AUTO_FOCUS = None

    side = getters.query_one(SidePanel)

    def __init__(
        self,
        context: Context,
        tab: str,
        entry: RequestEntry | None,
        below: SidePanel,
        hidden: Callable[[Size], bool],
    ) -> None:
        super().__init__()
        self.context = context
        self._tab = tab
        self._entry = entry
        self._below = below
        self._hidden = hidden

    def compose(self) -> ComposeResult:
        side = SidePanel(tab=self._tab, id="server-side")
        side.add_class("panel")
        yield side
        yield TaskBar(self.context.tasks, stop_key="^c")  # escape closes this screen
        yield KeyFooter()

    def on_mount(self) -> None:
        self._draw()
        self.side.take_focus()
        self.subscribe(self.context.server.changed, lambda _: self._draw())
        self.subscribe(self.context.chats.engine_changed, lambda _: self._draw())
        if self._entry is not None and self._entry.live:
            self.set_interval(_LIVE_SECONDS, self._draw)

    def _draw(self) -> None:
        if self.is_attached:
            self.side.show(server_actions.side_panel_state(self.context, self._entry))
            self.refresh_bindings()

    def on_side_panel_tab_opened(self) -> None:
        self.refresh_bindings()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        event.stop()
        self.side.reveal()

    def on_screen_resume(self) -> None:
        """Close if the terminal was resized while a dialog was open."""
        self.on_resize()

    def on_resize(self) -> None:
        """Close once there is room for the tabs in the pane below."""
        if not self._hidden(self.size):
            self._below.open(self.side.tab)
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the keys of other tabs, dim those of disabled actions."""
        del parameters
        if (
            action in server_actions.KEY_ACTIONS
            and self.is_mounted
            and self.side.tab != KEYS
            and action != "copy_key"
        ):
            return False
        if action == "copy" and self.is_mounted and self.side.tab == REQUEST and self._entry is None:
            return None
        side = self.side if self.is_mounted else None
        return None if server_actions.disabled_reason(self.context, action, side) else True

    def action_tab(self, by: int) -> None:
        self.side.step(by)

    def action_copy(self) -> None:
        server_actions.copy_shown(self, self.context, self.side, self._entry)

    def action_copy_address(self) -> None:
        server_actions.copy_address(self, self.context)

    def action_copy_key(self) -> None:
        server_actions.copy_key(self, self.context, self.side.key_name)

    def action_new_key(self) -> None:
        server_actions.new_key(self, self.context, self.side)

    def action_drop_key(self) -> None:
        server_actions.drop_key(self, self.context, self.side.key_name)

    def action_reveal(self) -> None:
        self.side.reveal()
