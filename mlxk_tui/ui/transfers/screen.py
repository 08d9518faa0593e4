"""One transfer as a screen of its own, for terminals below 100 columns."""

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
from mlxk_tui.ui.shell.footer import KeyLine
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.transfers import actions as acts, keys
from mlxk_tui.ui.transfers.detail import TransferDetail
from mlxk_tui.ui.widgets.transient import Transient


class TransferScreen(Transient[None]):
    """One transfer, over the whole screen.

    Args:
        context: what every pane is given.
        identity: the transfer.
        below: the pane's own detail: this screen goes once that can be seen again.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Back", key_display="esc", id="transfer.back"),
        keys.PAUSE,
        keys.DROP,
        keys.RETRY,
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
        """The transfer; None once it was taken out of the list."""
        return self.context.transfers.get(self._identity)

    def compose(self) -> ComposeResult:
        """Lay out the detail."""
        now, wall = self.context.transfers.monotonic, self.context.library.clock
        yield TransferDetail(now=now, wall=wall, id="transfer-detail")
        yield TaskBar(self.context.tasks)
        yield KeyLine()

    def on_mount(self) -> None:
        """Show the transfer and follow it."""
        self.detail.show(self.transfer)
        self.subscribe(self.context.transfers.changed, self._changed)
        self.set_interval(1.0, self.detail.draw)

    def _changed(self, change: Change) -> None:
        if change.structure:
            self._follow()
        elif self._identity in change.ids:
            self.detail.show(self.transfer)

    def _follow(self) -> None:
        if self.transfer is None:
            self.dismiss()
        else:
            self.detail.show(self.transfer)
            self.refresh_bindings()

    def on_screen_resume(self) -> None:
        """Leave when that was due while a dialog lay over this screen."""
        self._follow()
        self.on_resize()

    def on_resize(self) -> None:
        """Make way for the detail below once the terminal is wide enough for both."""
        if self.size.width >= WIDE:
            self._below.body.focus()
            self.dismiss()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Dim the keys of actions that are not possible now."""
        del parameters
        if action not in {"pause", "drop", "retry"}:
            return True
        blocked = self.context.transfers.locked or keys.why_not(action, self.transfer)
        return None if blocked else True

    def action_pause(self) -> None:
        """Pause, or go on."""
        if transfer := self.transfer:
            acts.toggle(self, self.context, transfer)

    def action_drop(self) -> None:
        """Cancel, or take out of the list."""
        if transfer := self.transfer:
            acts.drop(self, self.context, transfer)

    def action_retry(self) -> None:
        """Try again."""
        if transfer := self.transfer:
            pull_actions.attempt(self, lambda: self.context.transfers.retry(transfer.id))
