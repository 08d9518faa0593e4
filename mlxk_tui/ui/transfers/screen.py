"""The details of a transfer as a full screen, for terminals below 100 columns."""

from __future__ import annotations

from typing import ClassVar

from textual import getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from mlxk_tui.transfers.changes import Change
from mlxk_tui.transfers.jobs import Transfer
from mlxk_tui.ui.inspector import pull_actions
from mlxk_tui.ui.inspector.screens import WIDE
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyFooter
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.transfers import actions, keys, rate_limit
from mlxk_tui.ui.transfers.detail import TransferDetail
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen


class TransferScreen(OverlayScreen[None]):
    """One transfer on the full screen.

    Args:
        context: the app's services.
        identity: id of the transfer.
        below: the details in the pane below: this screen closes once there is room for them.
    """

    BINDING_GROUP_TITLE = "Transfers: details on a narrow terminal"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Back", key_display="esc", id="transfer.back"),
        keys.PAUSE,
        keys.DROP,
        keys.RETRY,
        keys.LIMIT,
    ]
    AUTO_FOCUS = "DetailBody"

    detail = getters.query_one(TransferDetail)

    def __init__(self, context: Context, identity: str, below: TransferDetail) -> None:
        super().__init__()
        self.context = context
        self._identity = identity
        self._below = below

    @property
    def transfer(self) -> Transfer | None:
        """The transfer; None once it was removed from the list."""
        return self.context.transfers.get(self._identity)

    def compose(self) -> ComposeResult:
        now, wall = self.context.transfers.monotonic, self.context.library.clock
        yield TransferDetail(now=now, wall=wall, id="transfer-detail")
        yield TaskBar(self.context.tasks)
        yield KeyFooter()

    def on_mount(self) -> None:
        self.detail.show(self.transfer)
        self.subscribe(self.context.transfers.changed, self._changed)
        self.set_interval(1.0, self.detail.draw)

    def _changed(self, change: Change) -> None:
        if change.structure:
            self._update()
        elif self._identity in change.ids:
            self.detail.show(self.transfer)

    def _update(self) -> None:
        if self.transfer is None:
            self.dismiss()
        else:
            self.detail.show(self.transfer)
            self.refresh_bindings()

    def on_screen_resume(self) -> None:
        """Close if the transfer was removed or the terminal resized while a dialog was open."""
        self._update()
        self.on_resize()

    def on_resize(self) -> None:
        """Close once there is room for the details in the pane below."""
        if self.size.width >= WIDE:
            self._below.body.focus()
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        del parameters
        if action not in {"pause", "drop", "retry", "limit"}:
            return True
        reason = self.context.transfers.read_only_reason or keys.disabled_reason(action, self.transfer)
        return None if reason else True

    def action_pause(self) -> None:
        if transfer := self.transfer:
            actions.toggle_pause(self, self.context, transfer)

    def action_drop(self) -> None:
        if transfer := self.transfer:
            actions.cancel_or_remove(self, self.context, transfer)

    def action_limit(self) -> None:
        if transfer := self.transfer:
            rate_limit.limit_transfer(self, self.context, transfer)

    def action_retry(self) -> None:
        if transfer := self.transfer:
            pull_actions.try_action(self, lambda: self.context.transfers.resume(transfer.id))
