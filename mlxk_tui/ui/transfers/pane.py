"""The Transfers pane: the queue of pulls and pushes, with the details of one beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import getters
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.ops.core.text import plural
from mlxk_tui.services.library import Changed
from mlxk_tui.transfers.changes import Change
from mlxk_tui.transfers.jobs import Transfer, TransferState
from mlxk_tui.ui.inspector import pull_actions
from mlxk_tui.ui.inspector.screens import WIDE
from mlxk_tui.ui.shell.pane import Pane
from mlxk_tui.ui.transfers import actions, keys, rate_limit
from mlxk_tui.ui.transfers.detail import TransferDetail
from mlxk_tui.ui.transfers.list import TransferList
from mlxk_tui.ui.transfers.screen import TransferScreen
from mlxk_tui.ui.transfers.text import rate_text
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView
from mlxk_tui.ui.widgets.text import sentence

_ON_SELECTED = {"pause", "drop", "retry", "move_up", "move_down", "limit"}


class TransfersPane(Pane):
    """The list of transfers and the details of the selected one."""

    pane_id = "transfers"
    AUTO_FOCUS = "#transfers"
    BINDING_GROUP_TITLE = "Transfers"
    BINDINGS: ClassVar[list[BindingType]] = [
        keys.FIND,
        keys.PAUSE,
        keys.DROP,
        keys.RETRY,
        keys.UP,
        keys.DOWN,
        keys.LIMIT,
        keys.LIMIT_ALL,
        keys.CLEAR,
        keys.PUSH,
        Binding("escape", "leave", "Back", show=False, id="transfers.leave"),
    ]

    listed = getters.query_one("#transfers", TransferList)
    detail = getters.query_one("#transfer-detail", TransferDetail)
    panel = getters.query_one("#transfers-panel", Vertical)
    note = getters.query_one("#transfers-note", Static)
    message = getters.query_one("#transfers-message", StateView)

    def body(self) -> Iterable[Widget]:
        now, wall = self.context.transfers.monotonic, self.context.library.clock
        panel = Vertical(
            Static(id="transfers-note", markup=False),
            TransferList(now=now, wall=wall, id="transfers"),
            StateView(id="transfers-message"),
            id="transfers-panel",
        )
        panel.border_title = "Transfers"
        yield Horizontal(panel, TransferDetail(now=now, wall=wall, id="transfer-detail"), id="transfers-body")

    def on_mount(self) -> None:
        """Draw, and update ages and the times to the next attempt every second."""
        self.draw_transfers(Change(structure=True))
        self.subscribe(self.context.rate_limits.changed, lambda rate: self._draw_counts())
        self.set_interval(1.0, self._update_times)

    # -- drawing -----------------------------------------------------------------------------------

    def draw_library(self, change: Changed) -> None:
        del change  # nothing here comes from the cache

    def draw_transfers(self, change: Change) -> None:
        """Draw list, details and messages; in place if only the progress changed."""
        if change.structure:
            self.listed.show(self.context.transfers.transfers)
            self._draw_message()
            self.detail.show(self.selected)
            self.update_keys()
        elif change.ids:
            self.listed.refresh()
            if self.listed.cursor_key in change.ids:
                self.detail.show(self.selected)
        self._draw_counts()

    def _update_times(self) -> None:
        if self.is_current and not self.context.transfers.running:
            self.listed.refresh()
            self.detail.draw()

    def _draw_message(self) -> None:
        queue, view = self.context.transfers, self.message
        listed = bool(queue.transfers)
        self.panel.set_class(not listed, "-message")
        self.query_one("#transfers-body").set_class(not listed, "-empty")
        warnings = [f"▲ {sentence(text)}" for text in (queue.read_only_reason, queue.problem) if text]
        self.note.display = bool(warnings) and listed
        if warnings:
            self.note.update(Content.styled("\n".join(warnings), "$attention"))
        if listed:
            return
        if not queue.ready:
            view.show("·  ·  ·", "Loading transfers", [])
        elif queue.read_only_reason:
            view.show("▲", "Transfers run in another window", [queue.read_only_reason], style="$attention")
        else:
            view.show(
                "⇅",
                "No transfers yet",
                [
                    *([sentence(queue.problem), ""] if queue.problem else []),
                    "Search the hub and pull a model.",
                    "Interrupted transfers resume at the next start.",
                ],
                keys=[("/", "find a model"), ("P", "push a folder")],
            )

    def _draw_counts(self) -> None:
        queue = self.context.transfers
        running = queue.running
        waiting = sum(transfer.state is TransferState.WAITING for transfer in queue.transfers)
        failed = sum(transfer.state is TransferState.FAILED for transfer in queue.transfers)
        parts = [f"{len(running)} running"] if running else []
        parts += [f"{waiting:,} waiting"] if waiting else []
        parts += [f"{failed:,} failed"] if failed else []
        rate = sum(transfer.rates.rate(queue.monotonic()) for transfer in running)
        parts += [rate_text(rate)] if rate >= 1 else []
        limit = self.context.rate_limits.total
        parts += [f"limit {rate_text(limit)}"] if limit is not None else []
        total = plural(len(queue.transfers), "transfer") if queue.transfers else ""
        self.panel.border_subtitle = Content(" · ".join(parts) or total)

    def on_resize(self) -> None:
        """Focus the list if the details are hidden at this width."""
        focused = self.focused
        if self.size.width < WIDE and (focused is None or self.detail in focused.ancestors_with_self):
            self.listed.focus()

    # -- what is selected --------------------------------------------------------------------------

    @property
    def selected(self) -> Transfer | None:
        """The transfer under the cursor."""
        return self.context.transfers.get(self.listed.cursor_key or "")

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        event.stop()
        self.detail.show(self.selected)
        self.update_keys()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        event.stop()
        if self.has_class("-narrow"):
            self.app.push_screen(TransferScreen(self.context, event.key, self.detail))
        else:
            self.detail.body.focus()

    # -- actions -----------------------------------------------------------------------------------

    def disabled_reason(self, action: str) -> str | None:
        queue = self.context.transfers
        if action == "push":
            return pull_actions.push_disabled_reason(self.context)
        if action in {*_ON_SELECTED, "clear", "limit_all"} and queue.read_only_reason:
            return queue.read_only_reason
        if action in _ON_SELECTED:
            return keys.disabled_reason(action, self.selected)
        if action == "clear" and not any(transfer.state.finished for transfer in queue.transfers):
            return "No finished transfers."
        return None

    def action_find(self) -> None:
        pull_actions.open_hub_search(self, self.context)

    def action_push(self) -> None:
        pull_actions.open_push_form(self, self.context)

    def action_pause(self) -> None:
        if transfer := self.selected:
            actions.toggle_pause(self, self.context, transfer)

    def action_drop(self) -> None:
        if transfer := self.selected:
            actions.cancel_or_remove(self, self.context, transfer)

    def action_retry(self) -> None:
        if transfer := self.selected:
            pull_actions.try_action(self, lambda: self.context.transfers.resume(transfer.id))

    def _move(self, by: int) -> None:
        if transfer := self.selected:
            pull_actions.try_action(self, lambda: self.context.transfers.move(transfer.id, by))

    def action_move_up(self) -> None:
        self._move(-1)

    def action_move_down(self) -> None:
        self._move(1)

    def action_limit(self) -> None:
        if transfer := self.selected:
            rate_limit.limit_transfer(self, self.context, transfer)

    def action_limit_all(self) -> None:
        rate_limit.limit_all(self, self.context)

    def action_clear(self) -> None:
        actions.clear_finished(self, self.context)

    def action_leave(self) -> None:
        """Focus the list; if it is focused, stop the latest task."""
        if not self.listed.has_focus:
            self.listed.focus()
        else:
            self.stop_task()
