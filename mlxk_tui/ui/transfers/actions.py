"""Actions on transfers: pause, resume, cancel, remove from the list."""

from __future__ import annotations

from mlxk_tui.ops.core.text import format_size
from mlxk_tui.transfers.jobs import Transfer, TransferState
from mlxk_tui.ui.inspector import model_actions
from mlxk_tui.ui.inspector.model_actions import Host
from mlxk_tui.ui.inspector.pull_actions import short_name, try_action
from mlxk_tui.ui.shell.context import Context


def toggle_pause(host: Host, context: Context, transfer: Transfer) -> None:
    """Pause a transfer, or resume it."""
    active = transfer.state in {TransferState.RUNNING, TransferState.WAITING}
    change = context.transfers.pause if active else context.transfers.resume
    try_action(host, lambda: change(transfer.id))


async def cancel(host: Host, context: Context, transfer: Transfer) -> None:
    """Cancel a transfer, after a confirmation if bytes were transferred. Run it with `run_dialog`."""
    from mlxk_tui.ui.widgets.dialogs import ConfirmDialog

    if transfer.bytes_done and transfer.state is not TransferState.FAILED:
        name = short_name(transfer)
        if transfer.is_push:
            kind, text = "upload", "Nothing is on the hub yet. Push again to start over."
        else:
            kind = "download"
            text = f"{format_size(transfer.bytes_done)} stays on disk. Pull again to resume."
        dialog = ConfirmDialog(f"Cancel {name}?", text, proceed=f"Cancel {kind}", cancel=f"Keep {kind}ing")
        if not await host.app.push_screen_wait(dialog):
            return
    try_action(host, lambda: context.transfers.cancel(transfer.id))  # no effect if it ended meanwhile


def cancel_or_remove(host: Host, context: Context, transfer: Transfer) -> None:
    """Cancel a transfer, or remove it from the list if it has ended."""
    if transfer.state.finished or transfer.state is TransferState.FAILED:
        try_action(host, lambda: context.transfers.remove(transfer.id))
    else:
        model_actions.run_dialog(host, cancel(host, context, transfer))


def clear_finished(host: Host, context: Context) -> None:
    """Remove all finished transfers from the list."""
    try_action(host, context.transfers.clear_finished)
