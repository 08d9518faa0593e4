"""What changes transfers: paused, resumed, canceled, taken out of the list."""

from __future__ import annotations

from mlxk_tui.ops.core.text import spaced_size
from mlxk_tui.transfers.jobs import Transfer, TransferState
from mlxk_tui.ui.inspector import model_actions
from mlxk_tui.ui.inspector.model_actions import Host
from mlxk_tui.ui.inspector.pull_actions import attempt, short_name
from mlxk_tui.ui.shell.context import Context

# -- changing ------------------------------------------------------------------------------------------


def toggle(host: Host, context: Context, transfer: Transfer) -> None:
    """Pause a transfer, or let it go on."""
    going = transfer.state in {TransferState.RUNNING, TransferState.WAITING}
    change = context.transfers.pause if going else context.transfers.resume
    attempt(host, lambda: change(transfer.id))


async def cancel(host: Host, context: Context, transfer: Transfer) -> None:
    """Stop a transfer for good, after a question where bytes were moved. Run with `actions.ask`."""
    from mlxk_tui.ui.widgets.dialogs import QuestionDialog

    if transfer.bytes_done and transfer.state is not TransferState.FAILED:
        name = short_name(transfer)
        if transfer.is_push:
            text = "Nothing of it is on the hub yet; pushing it again begins anew."
        else:
            much = spaced_size(transfer.bytes_done)
            text = f"The {much} that are there stay on disk: pulling {name} again goes on from there."
        question = QuestionDialog(f"Cancel {name}?", text, proceed="Cancel it", cancel="Go on")
        if not await host.app.push_screen_wait(question):
            return
    attempt(host, lambda: context.transfers.cancel(transfer.id))  # does nothing where it ended meanwhile


def drop(host: Host, context: Context, transfer: Transfer) -> None:
    """Cancel a transfer; one that has ended is taken out of the list."""
    if transfer.state.finished or transfer.state is TransferState.FAILED:
        attempt(host, lambda: context.transfers.remove(transfer.id))
    else:
        model_actions.ask(host, cancel(host, context, transfer))


def clear_finished(host: Host, context: Context) -> None:
    """Take out of the list whatever is finished."""
    attempt(host, context.transfers.clear_finished)
