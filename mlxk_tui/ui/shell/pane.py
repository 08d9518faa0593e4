"""What every pane shares: header line, tab strip, task bar, footer, and how keys explain themselves."""

from __future__ import annotations

from collections.abc import Iterable

from textual import events, getters
from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.ops.core.text import plural, printable, spaced_size
from mlxk_tui.services.library import Changed, ScanPhase
from mlxk_tui.services.server.control import ServerPhase as Switch
from mlxk_tui.transfers.changes import Change
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyLine
from mlxk_tui.ui.shell.registry import PANES
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.shell.tasks import stop_latest_task
from mlxk_tui.ui.widgets.base_screen import BaseScreen
from mlxk_tui.ui.widgets.tab_strip import Tab, TabStrip
from mlxk_tui.ui.widgets.text import Part, cut, flush_right, line


class HeaderLine(Static):
    """What the cache holds; the right side belongs to engine and server."""

    def __init__(self, context: Context) -> None:
        super().__init__(id="header")
        self._given = context

    def draw(self) -> None:
        """Draw what is known now."""
        library = self._given.library
        parts: list[Part] = [("mlxk", "$accent bold"), (f"   {self._given.label}", "$strong")]
        if library.phase is ScanPhase.FAILED:
            parts.append((" · cannot be read", "$bad"))
        else:
            parts.append((f" · {plural(len(library.entries), 'model')}", ""))
            if library.entries:
                parts.append((f" · {spaced_size(library.total_bytes)}", ""))
        if library.phase is ScanPhase.LOADING:
            parts.append((" · reading …", "$muted"))
        moving, server, engine = self._moving(), self._server(), self._engine()
        brief = self._engine(16)
        # What there is no room for goes, what is least urgent first.
        for choice in (
            (moving, server, engine),
            (server, engine),
            (server, brief),
            (engine,),
            (server,),
            (moving,),
        ):
            told: list[Part] = []
            for group in choice:
                told += [*([("   ", "")] if told and group else []), *group]
            if right := flush_right(parts, told, self.size.width - 2):
                parts += right
                break
        self.update(line(parts), layout=False)

    def _server(self) -> list[Part]:
        """Return where the server listens; nothing while it is off."""
        server = self._given.server
        if server.phase is Switch.ON:
            return [("▲ ", "$good"), (f"server :{server.port}", "")]
        return [] if server.phase is Switch.OFF else [(f"△ server {server.phase.value}", "$muted")]

    def _moving(self) -> list[Part]:
        """Return how much is being transferred and how fast, each direction by itself."""
        queue = self._given.transfers
        parts: list[Part] = []
        for glyph, push in (("↓", False), ("↑", True)):
            running = [transfer for transfer in queue.running if transfer.is_push is push]
            if running:
                rate = sum(transfer.rates.rate(queue.monotonic()) for transfer in running)
                fast = f" {spaced_size(int(rate))}/s" if rate >= 1 else ""
                parts.append((f"{'  ' if parts else ''}{glyph}{len(running)}{fast}", "$accent"))
        return parts

    def _engine(self, width: int = 28) -> list[Part]:
        """Return the model in memory, its name in at most so many cells, and how fast it answers."""
        status = self._given.chats.status
        if status.loading is not None:
            done, total = status.loading_done, status.loading_total
            told = f" loading {100 * done // total} %" if total else " loading"
            return [("○ ", "$accent"), (_short(status.loading, width), ""), (told, "$muted")]
        if status.model is None:
            return [("✗ ", "$bad"), ("engine ended", "$muted")] if status.state.value == "failed" else []
        busy = status.streams > 0
        parts: list[Part] = [("● ", "$good" if busy else "$muted"), (_short(status.model.name, width), "")]
        if busy and status.tokens_per_s >= 1:
            parts.append((f" {status.tokens_per_s:,.0f} tok/s", "$muted"))
        return parts

    def on_resize(self) -> None:
        """Draw for the new width."""
        self.draw()


def _short(name: str, width: int) -> str:
    return cut(printable(name.rpartition("/")[2]), width)


class Pane(BaseScreen[None]):
    """One pane: subclasses compose the body and say why an action is not possible now."""

    TITLE = "mlxk-tui"
    pane_id = ""
    """The id in the registry."""

    header = getters.query_one(HeaderLine)
    tabs = getters.query_one("#tabs", TabStrip)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self._stale = False
        self._possible: tuple[bool, ...] = ()

    def compose(self) -> ComposeResult:
        """Lay out the shell round the body."""
        yield HeaderLine(self.context)
        yield TabStrip(self._tabs(), self.pane_id, id="tabs")
        yield from self.body()
        yield TaskBar(self.context.tasks)
        yield KeyLine()

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
        """Follow the library."""
        self.subscribe(self.context.library.changed, self._library_changed)
        self.subscribe(self.context.transfers.changed, self._transfers_changed)
        self.subscribe(self.context.chats.engine_changed, lambda _: self._engine_changed())
        self.subscribe(self.context.server.changed, self._server_changed)
        self._library_changed(Changed(frozenset(self.context.library.entries)))

    def _library_changed(self, change: Changed) -> None:
        if not self.is_current and self.app.screen_stack[0] is not self:
            self._stale = True  # drawn when it is looked at again
            self.forget(change)
            return
        self.forget(change)
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
        """Catch up with what happened while another pane was open."""
        if self._stale:
            self._stale = False
            self.draw_shell()
            self.draw_library(Changed(frozenset(self.context.library.entries)))
            self.draw_transfers(Change(structure=True))
            self.draw_server(structure=True)

    def draw_shell(self) -> None:
        """Draw header and tabs."""
        self.header.draw()
        self.tabs.tabs = tuple(self._tabs())

    def draw_library(self, change: Changed) -> None:
        """Draw the pane for the library's present state."""
        raise NotImplementedError

    def draw_transfers(self, change: Change) -> None:
        """Draw what the pane shows of the transfers; nothing by default."""

    def draw_server(self, *, structure: bool) -> None:
        """Draw what the pane shows of the server; nothing by default."""

    def forget(self, change: Changed) -> None:
        """Drop what belongs to removed repos; called whether the pane is looked at or not."""

    async def on_tab_strip_opened(self, event: TabStrip.Opened) -> None:
        """Switch to the pane whose tab was clicked, unless a dialog has opened meanwhile."""
        if event.source.id == "tabs":
            await self.app.run_action(f"app.pane('{event.id}')")

    def stop_task(self) -> bool:
        """Stop the task that was started last; False where none runs."""
        return stop_latest_task(self.app, self.context.tasks)

    # -- actions that are not possible now ---------------------------------------------------------

    def why_not(self, action: str) -> str | None:
        """Return why an action is not possible now, as a sentence; None where it is."""
        del action
        return None

    def why_nothing(self) -> str | None:
        """Return why there is no model to act on, as a sentence; None where there is one."""
        library = self.context.library
        if library.entries:
            return None
        if library.phase is ScanPhase.FAILED:
            return "The cache cannot be read; r tries again."
        if library.phase is ScanPhase.LOADING:
            return "The cache is still being read."
        return "There is nothing in the cache."

    def update_keys(self) -> None:
        """Draw the footer again where other keys work than before; that costs, so only then."""
        actions = [
            binding.action for bindings in self._bindings.key_to_bindings.values() for binding in bindings
        ]
        possible = tuple(self.why_not(action) is None for action in actions)
        if possible != self._possible:
            self._possible = possible
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Dim the keys of actions that are not possible now."""
        del parameters
        return None if self.why_not(action) else True

    def on_key(self, event: events.Key) -> None:
        """Say why a dimmed key does nothing."""
        active = self.active_bindings.get(event.key)
        if active is not None and not active.enabled:
            action = active.binding.action.partition("(")[0].rpartition(".")[2]
            if reason := self.why_not(action):
                self.notify(reason, severity="warning", markup=False, timeout=4)
