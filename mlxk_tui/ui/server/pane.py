"""The Server pane: the status, the live requests, and how to connect other programs."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import ClassVar

from textual import getters
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Size
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.services.library import Changed
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.ui.inspector.screens import WIDE
from mlxk_tui.ui.server import keys, server_actions, status_text
from mlxk_tui.ui.server.request_list import RequestHeader, RequestList
from mlxk_tui.ui.server.screen import ServerScreen
from mlxk_tui.ui.server.side_panel import FIRST_SNIPPET, KEYS, REQUEST, SidePanel
from mlxk_tui.ui.server.status_panel import StatusPanel
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.pane import Pane
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView

TALL = 30
"""Lines from which the tabs fit below the requests."""
_LIVE_SECONDS = 0.25
"""Interval at which open requests are drawn."""
_SETTLE_SECONDS = 0.1


def folded(size: Size) -> bool:
    """Return whether a terminal is too small for the tabs below the requests."""
    return size.width < WIDE or size.height < TALL


class ServerPane(Pane):
    """The status, the requests, and the tabs below them."""

    pane_id = "server"
    AUTO_FOCUS = "#requests"
    BINDING_GROUP_TITLE = "Server"
    BINDINGS: ClassVar[list[BindingType]] = [
        keys.SWITCH,
        keys.SETUP,
        keys.MODEL,
        keys.UNLOAD,
        keys.CONNECT,
        keys.ADDRESS,
        keys.NEW_KEY,
        keys.DROP_KEY,
        keys.REVEAL,
        keys.COPY_KEY,
        keys.COPY,
        keys.FREE_PORT,
        keys.CLEAR,
        keys.LEFT,
        keys.RIGHT,
        Binding("escape", "leave", "Back", show=False, id="server.leave"),
    ]

    status = getters.query_one(StatusPanel)
    panel = getters.query_one("#server-requests", Vertical)
    listed = getters.query_one("#requests", RequestList)
    side = getters.query_one("#server-side", SidePanel)
    note = getters.query_one("#server-note", Static)
    message = getters.query_one("#server-message", StateView)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        runtime = context.runtime
        self._no_mlx = runtime.mlx_lm is None if runtime else importlib.util.find_spec("mlx_lm") is None
        self._live_timer: Timer | None = None
        self._settle_timer: Timer | None = None

    def body(self) -> Iterable[Widget]:
        requests = Vertical(
            Static(id="server-note", markup=False),
            RequestHeader(id="server-columns", markup=False),
            RequestList(id="requests"),
            StateView(id="server-message"),
            id="server-requests",
            classes="panel",
        )
        status, side = StatusPanel(id="server-status"), SidePanel(id="server-side")
        status.border_title = "Server"
        status.add_class("panel")
        side.add_class("panel")
        yield Vertical(status, requests, side, id="server-body")

    def on_mount(self) -> None:
        """Draw; a timer runs only while requests are open."""
        self._live_timer = self.set_interval(_LIVE_SECONDS, self._draw_live, pause=True)
        self.context.server.read_keys()
        self.subscribe(self.context.chats.engine_changed, lambda _: self._schedule_engine_draw())
        self._fold()
        self.draw_server(structure=True)

    # -- drawing -----------------------------------------------------------------------------------

    def draw_library(self, change: Changed) -> None:
        """Check the server's model again, and update the model in the snippets."""
        del change
        if self.context.server.model_problem is not None:  # it may have been installed meanwhile
            self.run_worker(self.context.server.check_model(), group="server-check", exit_on_error=False)
        self._draw_side()
        self.update_keys()

    def draw_server(self, *, structure: bool) -> None:
        """Draw everything, or only the requests."""
        server = self.context.server
        self.listed.show(server.entries)
        self._draw_frame()
        self.status.show(status_text.status(self.context))
        if structure:
            self._draw_side()
        else:
            self._draw_request()
        self.update_keys()
        if self._live_timer is not None:
            if server.live:
                self._live_timer.resume()
            else:
                self._live_timer.pause()

    def _draw_frame(self) -> None:
        server = self.context.server
        has_requests = bool(self.listed.keys)
        running = server.phase is not ServerPhase.OFF or has_requests
        body = self.query_one("#server-body")
        body.set_class(not running, "-off")
        self.panel.set_class(not has_requests, "-message")
        self.panel.border_title = "Requests" if running else "Server"
        self.panel.border_subtitle = Content(status_text.counts(server))
        problem, style = status_text.current_problem(self.context)
        self.note.display = has_requests and bool(problem)
        self.note.update(Content.styled(problem, style) if problem else "")
        if not has_requests:
            status_text.message(self.message, self.context, no_mlx=self._no_mlx)

    def _draw_side(self) -> None:
        self.side.show(server_actions.side_panel_state(self.context, self.selected))

    def _draw_request(self) -> None:
        """Draw the request under the cursor, if its tab is open."""
        if self.side.tab == REQUEST and self.side.display:
            self._draw_side()

    def _draw_live(self) -> None:
        if not self.is_current or not self.context.server.live:
            if self._live_timer is not None:
                self._live_timer.pause()
            return
        self.listed.refresh()
        entry = self.selected
        if entry is not None and entry.live:
            self._draw_request()

    def _schedule_engine_draw(self) -> None:
        """Draw the engine's state soon, once for many changes."""
        if self._settle_timer is None and self.is_current:
            self._settle_timer = self.set_timer(_SETTLE_SECONDS, self._draw_engine)

    def _draw_engine(self) -> None:
        self._settle_timer = None
        if self.is_current:
            self.status.show(status_text.status(self.context))
            self._draw_frame()
            self._draw_side()
            self.update_keys()

    def on_resize(self) -> None:
        self._fold()

    def _fold(self) -> None:
        small = folded(self.size)
        if self.is_mounted:
            if small and self.side.has_focus_within:
                self.listed.focus()
            self.query_one("#server-body").set_class(small, "-folded")

    # -- what is selected --------------------------------------------------------------------------

    @property
    def selected(self) -> RequestEntry | None:
        """The request under the cursor."""
        return self.listed.selected

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        event.stop()
        if event.source is self.listed:
            self._draw_request()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        """Open the selected request, or show the selected API key."""
        event.stop()
        if event.source is self.listed:
            self._open(REQUEST)
        else:
            self.side.reveal()

    def on_side_panel_tab_opened(self) -> None:
        """Draw the request under the cursor, which may have changed while another tab was open."""
        self._draw_side()
        self.update_keys()

    def on_status_panel_clicked(self, event: StatusPanel.Clicked) -> None:
        if event.part == "address":
            self.action_copy_address()
        elif self.disabled_reason("switch") is None:
            self.action_switch()

    def _open(self, tab: str) -> None:
        if self._side_visible:
            self.side.open(tab)
            self._draw_side()
            self.side.take_focus()
        else:
            self.app.push_screen(ServerScreen(self.context, tab, self.selected, self.side, self._hides_side))

    def _hides_side(self, size: Size) -> bool:
        """Return whether the tabs are hidden in a terminal of this size; they always are while it is off."""
        return folded(size) or self.query_one("#server-body").has_class("-off")

    # -- actions -----------------------------------------------------------------------------------

    def disabled_reason(self, action: str) -> str | None:
        action = action.partition("(")[0]
        server = self.context.server
        if action == "switch":
            if server.phase is ServerPhase.STARTING:
                return "The server is starting."
            if self._no_mlx and server.phase is ServerPhase.OFF:
                return "mlx-lm is not installed, so no model can run."
            return None
        if action in {"tab", "copy"} and not self.is_mounted:
            return None
        if action == "copy" and not self._side_visible:
            return "Nothing to copy. Press i to open the snippets, or enter to open a request."
        return server_actions.disabled_reason(self.context, action, self.side if self.is_mounted else None)

    @property
    def _side_visible(self) -> bool:
        return not self._hides_side(self.size)

    def action_switch(self) -> None:
        self.context.server.toggle()

    def action_setup(self) -> None:
        server_actions.edit_setup(self, self.context)

    def action_model(self) -> None:
        server_actions.choose_model(self, self.context)

    def action_unload(self) -> None:
        server_actions.unload_model(self, self.context)

    def action_connect(self) -> None:
        tab = self.side.tab
        self._open(FIRST_SNIPPET if tab in {REQUEST, KEYS} else tab)

    def action_copy_address(self) -> None:
        server_actions.copy_address(self, self.context)

    def action_new_key(self) -> None:
        server_actions.new_key(self, self.context, self.side)

    def action_drop_key(self) -> None:
        if self._keys_in_view():
            server_actions.drop_key(self, self.context, self.side.key_name)

    def action_reveal(self) -> None:
        if self._keys_in_view():
            self.side.reveal()

    def _keys_in_view(self) -> bool:
        """Return whether the keys are visible; open their tab if they are not."""
        if self._side_visible and self.side.tab == KEYS:
            return True
        self._open(KEYS)
        return False

    def action_copy_key(self) -> None:
        server_actions.copy_key(self, self.context, self.side.key_name)

    def action_copy(self) -> None:
        server_actions.copy_shown(self, self.context, self.side, self.selected)

    def action_free_port(self) -> None:
        server_actions.take_free_port(self, self.context)

    def action_clear(self) -> None:
        self.context.server.clear()

    def action_tab(self, by: int) -> None:
        if self._side_visible:
            self.side.step(by)

    def action_leave(self) -> None:
        """Focus the requests; if they are focused, stop the latest task."""
        if not self.listed.has_focus:
            self.listed.focus()
        else:
            self.stop_task()
