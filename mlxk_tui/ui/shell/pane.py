"""The base of every pane: header, tab strip, task bar, footer, and the reasons for disabled keys."""

from __future__ import annotations

from collections.abc import Iterable

from textual import events, getters
from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.services.library import Changed, ScanPhase
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.transfers.changes import Change
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyFooter
from mlxk_tui.ui.shell.registry import PANES
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.shell.tasks import stop_latest_task
from mlxk_tui.ui.widgets.base_screen import BaseScreen
from mlxk_tui.ui.widgets.tab_strip import Tab, TabStrip
from mlxk_tui.ui.widgets.text import Part, cut, flush_right, line


class HeaderLine(Static):
    """The cache on the left; transfers, server and engine on the right."""

    def __init__(self, context: Context) -> None:
        super().__init__(id="header")
        self.context = context

    def draw(self) -> None:
        library = self.context.library
        parts: list[Part] = [("mlxk", "$accent bold"), (f"   {self.context.label}", "$strong")]
        if library.phase is ScanPhase.FAILED:
            parts.append((" · unreadable", "$bad"))
        else:
            parts.append((f" · {plural(len(library.entries), 'model')}", ""))
            if library.entries:
                parts.append((f" · {format_size(library.total_bytes)}", ""))
        if library.phase is ScanPhase.LOADING:
            parts.append((" · scanning …", "$muted"))
        transfers, server, engine = self._transfers(), self._server(), self._engine()
        short_engine = self._engine(16)
        # The first combination that fits; the least urgent parts are dropped first.
        for groups in (
            (transfers, server, engine),
            (server, engine),
            (server, short_engine),
            (engine,),
            (server,),
            (transfers,),
        ):
            joined: list[Part] = []
            for group in groups:
                joined += [*([("   ", "")] if joined and group else []), *group]
            if right := flush_right(parts, joined, self.size.width - 2):
                parts += right
                break
        self.update(line(parts), layout=False)

    def _server(self) -> list[Part]:
        """Return the server's port; empty while the server is off."""
        server = self.context.server
        if server.phase is ServerPhase.ON:
            return [("▲ ", "$good"), (f"server :{server.port}", "")]
        return [] if server.phase is ServerPhase.OFF else [(f"△ server {server.phase.value}", "$muted")]

    def _transfers(self) -> list[Part]:
        """Return the number of running transfers and their rate, separately for each direction."""
        queue = self.context.transfers
        parts: list[Part] = []
        for glyph, push in (("↓", False), ("↑", True)):
            running = [transfer for transfer in queue.running if transfer.is_push is push]
            if running:
                rate = sum(transfer.rates.rate(queue.monotonic()) for transfer in running)
                fast = f" {format_size(int(rate))}/s" if rate >= 1 else ""
                parts.append((f"{'  ' if parts else ''}{glyph}{len(running)}{fast}", "$accent"))
        return parts

    def _engine(self, width: int = 28) -> list[Part]:
        """Return the loaded model, its name in at most `width` cells, and its tokens per second."""
        status = self.context.chats.status
        if status.loading is not None:
            done, total = status.loading_done, status.loading_total
            progress = f" loading {done / total:.0%}" if total else " loading"
            return [("○ ", "$accent"), (_short(status.loading, width), ""), (progress, "$muted")]
        if status.model is None:
            return [("✗ ", "$bad"), ("engine crashed", "$muted")] if status.state.value == "failed" else []
        busy = status.streams > 0
        parts: list[Part] = [("● ", "$good" if busy else "$muted"), (_short(status.model.name, width), "")]
        if busy and status.tokens_per_s >= 1:
            parts.append((f" {status.tokens_per_s:,.0f} tok/s", "$muted"))
        return parts

    def on_resize(self) -> None:
        self.draw()


def _short(name: str, width: int) -> str:
    return cut(printable(name.rpartition("/")[2]), width)


class Pane(BaseScreen[None]):
    """A pane; subclasses return its body and the reasons why actions are disabled."""

    TITLE = "mlxk-tui"
    pane_id = ""
    """Its id in the registry."""

    header = getters.query_one(HeaderLine)
    tabs = getters.query_one("#tabs", TabStrip)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self._stale = False
        self._enabled: tuple[bool, ...] = ()

    def compose(self) -> ComposeResult:
        yield HeaderLine(self.context)
        yield TabStrip(self._tabs(), self.pane_id, id="tabs")
        yield from self.body()
        yield TaskBar(self.context.tasks)
        yield KeyFooter()

    def body(self) -> Iterable[Widget]:
        """Return the pane's own widgets."""
        raise NotImplementedError

    def _tabs(self) -> list[Tab]:
        tabs = []
        for number, pane in enumerate(PANES, 1):
            badge = pane.badge(self.context)
            tabs.append(Tab(pane.id, pane.title, str(number), badge.text, badge.style))
        return tabs

    def on_mount(self) -> None:
        self.subscribe(self.context.library.changed, self._library_changed)
        self.subscribe(self.context.transfers.changed, self._transfers_changed)
        self.subscribe(self.context.chats.engine_changed, lambda _: self._engine_changed())
        self.subscribe(self.context.server.changed, self._server_changed)
        self._library_changed(Changed(frozenset(self.context.library.entries)))

    def _library_changed(self, change: Changed) -> None:
        if not self.is_current and self.app.screen_stack[0] is not self:
            self._stale = True  # drawn when the pane is shown again
            self.drop_removed(change)
            return
        self.drop_removed(change)
        self.draw_shell()
        self.draw_library(change)

    def _transfers_changed(self, change: Change) -> None:
        if self.is_current or self.app.screen_stack[0] is self:
            if self.context.transfers.running or change.structure:
                self.draw_shell()
            self.draw_transfers(change)
        else:
            self._stale = True

    def _server_changed(self, structure: bool) -> None:
        if self.is_current or self.app.screen_stack[0] is self:
            self.draw_shell()
            self.draw_server(structure=structure)
        else:
            self._stale = True

    def _engine_changed(self) -> None:
        if self.is_current:
            self.header.draw()
        else:
            self._stale = True

    def on_screen_resume(self) -> None:
        """Draw what changed while another pane was open."""
        if self._stale:
            self._stale = False
            self.draw_shell()
            self.draw_library(Changed(frozenset(self.context.library.entries)))
            self.draw_transfers(Change(structure=True))
            self.draw_server(structure=True)

    def draw_shell(self) -> None:
        self.header.draw()
        self.tabs.tabs = tuple(self._tabs())

    def draw_library(self, change: Changed) -> None:
        """Draw the pane after a change of the library."""
        raise NotImplementedError

    def draw_transfers(self, change: Change) -> None:
        """Draw the transfers, in panes that show them."""

    def draw_server(self, *, structure: bool) -> None:
        """Draw the server, in panes that show it; `structure`: more than the numbers changed."""

    def drop_removed(self, change: Changed) -> None:
        """Drop the state of removed repos, such as marks; called also while the pane is hidden."""

    async def on_tab_strip_activated(self, event: TabStrip.Activated) -> None:
        """Switch to the pane whose tab was clicked; the app refuses while a dialog is open."""
        if event.source.id == "tabs":
            await self.app.run_action(f"app.pane('{event.id}')")

    def stop_task(self) -> bool:
        """Stop the latest task, a long one after a confirmation; return False if none runs."""
        return stop_latest_task(self.app, self.context.tasks)

    # -- disabled actions --------------------------------------------------------------------------

    def disabled_reason(self, action: str) -> str | None:
        """Return why an action is disabled, as a sentence; None if it is enabled."""
        del action
        return None

    def no_models_reason(self) -> str | None:
        """Return why there are no models to act on, as a sentence; None if there are some."""
        library = self.context.library
        if library.entries:
            return None
        if library.phase is ScanPhase.FAILED:
            return "Can't read the cache. Press r to retry."
        if library.phase is ScanPhase.LOADING:
            return "Still scanning the cache."
        return "The cache is empty."

    def update_keys(self) -> None:
        """Refresh the footer if other keys are enabled than before: a refresh is expensive."""
        actions = [
            binding.action for bindings in self._bindings.key_to_bindings.values() for binding in bindings
        ]
        enabled = tuple(self.disabled_reason(action) is None for action in actions)
        if enabled != self._enabled:
            self._enabled = enabled
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Dim the keys of disabled actions."""
        del parameters
        return None if self.disabled_reason(action) else True

    def on_key(self, event: events.Key) -> None:
        """Show why a dimmed key does nothing."""
        active = self.active_bindings.get(event.key)
        if active is not None and not active.enabled:
            action = active.binding.action.partition("(")[0].rpartition(".")[2]
            if reason := self.disabled_reason(action):
                self.notify(reason, severity="warning", markup=False, timeout=4)
