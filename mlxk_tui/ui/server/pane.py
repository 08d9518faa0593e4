"""The Server pane: the switch, the requests live, and how other programs are pointed here."""

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
from mlxk_tui.ui.server import keys, server_actions as acts, status_text as said
from mlxk_tui.ui.server.request_list import RequestHeading, RequestList
from mlxk_tui.ui.server.screen import ServerScreen
from mlxk_tui.ui.server.side_panel import FIRST_SNIPPET, KEYS, REQUEST, ServerSide
from mlxk_tui.ui.server.status_panel import StatusPanel
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.pane import Pane
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView

TALL = 30
"""From this many lines on there is room for the tabs below the requests."""
_GROW_SECONDS = 0.25
"""How often the numbers of open requests are drawn."""
_SETTLE_SECONDS = 0.1


def folded(size: Size) -> bool:
    """Tell whether a terminal is too small for the tabs below the requests."""
    return size.width < WIDE or size.height < TALL


class ServerPane(Pane):
    """Status, requests, tabs."""

    pane_id = "server"
    AUTO_FOCUS = "#requests"
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
    side = getters.query_one("#server-side", ServerSide)
    note = getters.query_one("#server-note", Static)
    message = getters.query_one("#server-message", StateView)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        runtime = context.runtime
        self._no_mlx = runtime.mlx_lm is None if runtime else importlib.util.find_spec("mlx_lm") is None
        self._growing: Timer | None = None
        self._soon: Timer | None = None

    def body(self) -> Iterable[Widget]:
        """Lay out the pane."""
        requests = Vertical(
            Static(id="server-note", markup=False),
            RequestHeading(id="server-columns", markup=False),
            RequestList(id="requests"),
            StateView(id="server-message"),
            id="server-requests",
            classes="panel",
        )
        status, side = StatusPanel(id="server-status"), ServerSide(id="server-side")
        status.border_title = "Server"
        status.add_class("panel")
        side.add_class("panel")
        yield Vertical(status, requests, side, id="server-body")

    def on_mount(self) -> None:
        """Show what there is; a timer runs only while requests are open."""
        self._growing = self.set_interval(_GROW_SECONDS, self._grow, pause=True)
        self.context.server.read_keys()
        self.subscribe(self.context.chats.engine_changed, lambda _: self._engine_moved())
        self._fold()
        self.draw_server(structure=True)

    # -- drawing -----------------------------------------------------------------------------------

    def draw_library(self, change: Changed) -> None:
        """Name a model in the snippets once there is one."""
        del change
        if self.context.server.model_problem is not None:  # it may have come, or gone to another place
            self.run_worker(self.context.server.check_model(), group="server-judge", exit_on_error=False)
        self._draw_side()
        self.update_keys()

    def draw_server(self, *, structure: bool) -> None:
        """Draw everything, or what requests changed."""
        server = self.context.server
        self.listed.show(server.entries)
        self._draw_frame()
        self.status.show(said.status(self.context))
        if structure:
            self._draw_side()
        else:
            self._draw_request()
        self.update_keys()
        if self._growing is not None:
            if server.live:
                self._growing.resume()
            else:
                self._growing.pause()

    def _draw_frame(self) -> None:
        server = self.context.server
        some = bool(self.listed.keys)
        running = server.phase is not ServerPhase.OFF or some
        body = self.query_one("#server-body")
        body.set_class(not running, "-off")
        self.panel.set_class(not some, "-message")
        self.panel.border_title = "Requests" if running else "Server"
        self.panel.border_subtitle = Content(said.counts(server))
        trouble, style = said.trouble(self.context)
        self.note.display = some and bool(trouble)
        self.note.update(Content.styled(trouble, style) if trouble else "")
        if not some:
            said.message(self.message, self.context, no_mlx=self._no_mlx)

    def _draw_side(self) -> None:
        self.side.show(acts.shown(self.context, self.selected))

    def _draw_request(self) -> None:
        """Draw the request under the cursor; the other tabs stay as they are."""
        if self.side.tab == REQUEST and self.side.display:
            self._draw_side()

    def _grow(self) -> None:
        if not self.is_current or not self.context.server.live:
            if self._growing is not None:
                self._growing.pause()
            return
        self.listed.refresh()
        entry = self.selected
        if entry is not None and entry.live:
            self._draw_request()

    def _engine_moved(self) -> None:
        """Draw what the engine does, once for many changes."""
        if self._soon is None and self.is_current:
            self._soon = self.set_timer(_SETTLE_SECONDS, self._engine_settled)

    def _engine_settled(self) -> None:
        self._soon = None
        if self.is_current:
            self.status.show(said.status(self.context))
            self._draw_frame()
            self._draw_side()
            self.update_keys()

    def on_resize(self) -> None:
        """Leave the tabs out where there is no room for them."""
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
        """Show the request under the cursor."""
        event.stop()
        if event.source is self.listed:
            self._draw_request()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Go into the request, or show the keys."""
        event.stop()
        if event.source is self.listed:
            self._open(REQUEST)
        else:
            self.side.reveal()

    def on_server_side_opened(self) -> None:
        """Show the request that the cursor has come to meanwhile."""
        self._draw_side()
        self.update_keys()

    def on_status_panel_clicked(self, event: StatusPanel.Clicked) -> None:
        """Do what was clicked."""
        if event.what == "address":
            self.action_copy_address()
        elif self.why_not("switch") is None:
            self.action_switch()

    def _open(self, tab: str) -> None:
        if self._side_visible:
            self.side.open(tab)
            self._draw_side()
            self.side.take_focus()
        else:
            self.app.push_screen(ServerScreen(self.context, tab, self.selected, self.side, self._hides_side))

    def _hides_side(self, size: Size) -> bool:
        """Tell whether the tabs cannot be seen in a terminal of this size; switched off they never are."""
        return folded(size) or self.query_one("#server-body").has_class("-off")

    # -- actions -----------------------------------------------------------------------------------

    def why_not(self, action: str) -> str | None:
        """Return why an action is not possible now."""
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
            return "Open what is to be copied first: i shows how to connect, enter a request."
        return acts.why_not(self.context, action, self.side if self.is_mounted else None)

    @property
    def _side_visible(self) -> bool:
        return not self._hides_side(self.size)

    def action_switch(self) -> None:
        """Switch on or off."""
        self.context.server.toggle()

    def action_setup(self) -> None:
        """Ask where to listen."""
        acts.edit_setup(self, self.context)

    def action_model(self) -> None:
        """Ask for a model and load it."""
        acts.choose_model(self, self.context)

    def action_unload(self) -> None:
        """Free the model."""
        acts.unload_model(self, self.context)

    def action_connect(self) -> None:
        """Show the snippets."""
        tab = self.side.tab
        self._open(FIRST_SNIPPET if tab in {REQUEST, KEYS} else tab)

    def action_copy_address(self) -> None:
        """Copy the address."""
        acts.copy_address(self, self.context)

    def action_new_key(self) -> None:
        """Make a key."""
        acts.new_key(self, self.context, self.side)

    def action_drop_key(self) -> None:
        """Delete the selected key."""
        if self._keys_in_view():
            acts.drop_key(self, self.context, self.side.key_name)

    def action_reveal(self) -> None:
        """Show the keys."""
        if self._keys_in_view():
            self.side.reveal()

    def _keys_in_view(self) -> bool:
        """Tell whether the keys can be seen; if not, show them first."""
        if self._side_visible and self.side.tab == KEYS:
            return True
        self._open(KEYS)
        return False

    def action_copy_key(self) -> None:
        """Copy the selected key."""
        acts.copy_key(self, self.context, self.side.key_name)

    def action_copy(self) -> None:
        """Copy what the open tab shows."""
        acts.copy_shown(self, self.context, self.side, self.selected)

    def action_free_port(self) -> None:
        """Take the next free port."""
        acts.take_free_port(self, self.context)

    def action_clear(self) -> None:
        """Forget the requests that have ended."""
        self.context.server.clear()

    def action_tab(self, by: int) -> None:
        """Open the tab beside the open one."""
        if self._side_visible:
            self.side.step(by)

    def action_leave(self) -> None:
        """Leave the tabs; a running task is stopped last."""
        if not self.listed.has_focus:
            self.listed.focus()
        else:
            self.stop_task()
