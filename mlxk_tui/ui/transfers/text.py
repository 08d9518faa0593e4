"""A transfer as text: glyph, state, amount, rate and durations."""

from __future__ import annotations

from mlxk_tui.ops.core.text import age, format_size, iso_utc, printable
from mlxk_tui.transfers.jobs import Transfer, TransferState
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.text import Part

_GLYPHS = {
    TransferState.WAITING: ("·", "muted"),
    TransferState.PAUSED: ("‖", "attention"),
    TransferState.FAILED: ("✗", "bad"),
    TransferState.DONE: ("✓", "good"),
    TransferState.CANCELLED: ("∅", "faint"),
}


def glyph(transfer: Transfer) -> Part:
    """Return a one-cell glyph for the state, which needs no color, and its token."""
    if transfer.state is TransferState.RUNNING:
        return ("↑" if transfer.is_push else "↓"), "accent"
    if transfer.state is TransferState.WAITING and transfer.failure is not None:
        return "↻", "attention"
    return _GLYPHS[transfer.state]


def org(transfer: Transfer) -> str:
    """Return the organization, safe to show; empty if the name has none."""
    return printable(transfer.job.name.rpartition("/")[0])


def duration(seconds: float) -> str:
    """Return a duration in at most seven cells: `8s`, `2m 05s`, `3h 20m`, `4d`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours < 48 else f"{hours // 24}d"


def amount(transfer: Transfer) -> str:
    """Return the transferred amount: `1.21 of 2.28 GB`; empty while the total is unknown."""
    if not transfer.bytes_total:
        return ""
    if transfer.state is TransferState.DONE:
        return format_size(transfer.bytes_total)
    done, total = format_size(transfer.bytes_done), format_size(transfer.bytes_total)
    number, _, unit = done.partition(" ")
    return f"{number} of {total}" if total.endswith(f" {unit}") else f"{done} of {total}"


def activity(transfer: Transfer, now: float) -> str:
    """Return what a running transfer does at `now`, in seconds of the monotonic clock."""
    if not transfer.bytes_total:
        return "comparing with the hub" if transfer.is_push else "contacting the hub"
    if transfer.stage == "wait":
        return "waiting for a download by another program"
    if transfer.stage == "verify" and transfer.bytes_done >= transfer.bytes_total:
        return "verifying checksums"
    if transfer.rates.stalled(now):
        return "waiting for the hub"
    return "uploading" if transfer.is_push else "downloading"


def state_text(transfer: Transfer, now: float, wall: float) -> str:
    """Return the state in a few words, with its time.

    Args:
        transfer: the transfer.
        now: seconds of the monotonic clock.
        wall: seconds since the epoch.
    """
    if transfer.state is TransferState.RUNNING:
        return activity(transfer, now)
    if transfer.state is TransferState.WAITING:
        if transfer.retry_at is not None:
            return f"retrying in {duration(max(0.0, transfer.retry_at - now))}"
        return "waiting"
    if transfer.state is TransferState.PAUSED:
        return "paused" if transfer.fraction is None else f"paused at {transfer.fraction:.0%}"
    if transfer.state is TransferState.FAILED:
        return "failed"
    result = (
        "canceled"
        if transfer.state is TransferState.CANCELLED
        else "pushed"
        if transfer.is_push
        else "pulled"
    )
    return f"{result} {ended_ago(transfer, wall)}".rstrip()


def ended_ago(transfer: Transfer, wall: float) -> str:
    """Return how long ago a transfer ended; empty while it has not."""
    from datetime import datetime, timezone

    iso = iso_utc(transfer.ended)
    return age(iso, datetime.fromtimestamp(wall, timezone.utc)) if iso else ""


def failure_text(transfer: Transfer) -> str:
    """Return why the last attempt failed, as a safe sentence."""
    return error_text(transfer.failure.error) if transfer.failure is not None else ""


def rate_text(rate: float) -> str:
    """Return a rate in bytes per second: `54.3 MB/s`; a dash for none."""
    return f"{format_size(int(rate))}/s" if rate >= 1 else "–"
