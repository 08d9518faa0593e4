"""The keys that act on transfers, the same on every screen that shows some."""

from __future__ import annotations

from textual.binding import Binding

from mlxk_tui.transfers.jobs import Transfer, TransferState

FIND = Binding(
    "slash,n",
    "find",
    "Find",
    key_display="/",
    id="transfers.find",
    tooltip="Find models on the hub and pull them",
)
PAUSE = Binding(
    "space",
    "pause",
    "Pause/resume",
    key_display="spc",
    id="transfers.pause",
    tooltip="Pause the transfer, or let it go on",
)
DROP = Binding(
    "x",
    "drop",
    "Cancel",
    id="transfers.cancel",
    tooltip="Cancel the transfer (what is there stays on disk); take an ended one out of the list",
)
RETRY = Binding(
    "r", "retry", "Retry", id="transfers.retry", tooltip="Try a failed or cancelled transfer again"
)
UP = Binding(
    "K", "move_up", "Earlier", show=False, id="transfers.up", tooltip="Let the transfer be done earlier"
)
DOWN = Binding(
    "J", "move_down", "Later", show=False, id="transfers.down", tooltip="Let the transfer be done later"
)
CLEAR = Binding(
    "c", "clear", "Clear", id="transfers.clear", tooltip="Take finished transfers out of the list"
)
PUSH = Binding(
    "P", "push", "Push", id="transfers.push", tooltip="Push a folder of yours to a private repo of the hub"
)


def why_not(action: str, transfer: Transfer | None) -> str | None:
    """Return why an action is not possible for a transfer, as a sentence; None where it is."""
    if transfer is None:
        return "No transfer is selected."
    state = transfer.state
    if action == "pause" and state.finished:
        return "It has ended; r begins it again." if state is TransferState.CANCELLED else "It is done."
    if (
        action == "retry"
        and state not in {TransferState.FAILED, TransferState.CANCELLED}
        and transfer.retry_at is None
    ):
        return "Only what failed or was cancelled is tried again."
    if action in {"move_up", "move_down"} and state.finished:
        return "It has ended: its place does not matter any more."
    return None
