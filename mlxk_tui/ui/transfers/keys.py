"""Key bindings for transfers, the same on every screen that shows transfers."""

from __future__ import annotations

from textual.binding import Binding

from mlxk_tui.transfers.jobs import Transfer, TransferState

FIND = Binding(
    "slash,n",
    "find",
    "Find",
    key_display="/",
    id="transfers.find",
    tooltip="Search the hub and pull models",
)
PAUSE = Binding(
    "space",
    "pause",
    "Pause/resume",
    key_display="spc",
    id="transfers.pause",
    tooltip="Pause or resume the transfer",
)
DROP = Binding(
    "x",
    "drop",
    "Cancel",
    id="transfers.cancel",
    tooltip="Cancel the transfer (downloaded data is kept), or remove an ended one from the list",
)
RETRY = Binding("r", "retry", "Retry", id="transfers.retry", tooltip="Retry a failed or canceled transfer")
UP = Binding(
    "K", "move_up", "Move up", show=False, id="transfers.up", tooltip="Move the transfer up in the queue"
)
DOWN = Binding(
    "J",
    "move_down",
    "Move down",
    show=False,
    id="transfers.down",
    tooltip="Move the transfer down in the queue",
)
LIMIT = Binding(
    "l",
    "limit",
    "Limit rate",
    show=False,
    id="transfers.limit",
    tooltip="Limit the rate of the download",
)
LIMIT_ALL = Binding(
    "L",
    "limit_all",
    "Limit all",
    show=False,
    id="transfers.limit-all",
    tooltip="Limit the rate of all downloads together",
)
CLEAR = Binding(
    "c", "clear", "Clear", id="transfers.clear", tooltip="Remove finished transfers from the list"
)
PUSH = Binding(
    "P", "push", "Push", id="transfers.push", tooltip="Push a local folder to a private repo on the hub"
)


def disabled_reason(action: str, transfer: Transfer | None) -> str | None:
    """Return why an action is disabled for a transfer, as a sentence; None if it is enabled."""
    if transfer is None:
        return "No transfer selected."
    state = transfer.state
    if action == "limit" and transfer.is_push:
        return "Only downloads have a rate limit."
    if action == "pause" and state.finished:
        canceled = state is TransferState.CANCELLED
        return "The transfer was canceled. Press r to resume." if canceled else "The transfer is complete."
    if (
        action == "retry"
        and state not in {TransferState.FAILED, TransferState.CANCELLED}
        and transfer.retry_at is None
    ):
        return "Only failed or canceled transfers can be retried."
    if action in {"move_up", "move_down", "limit"} and state.finished:
        return "The transfer has ended."
    return None
