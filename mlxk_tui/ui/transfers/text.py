"""What is said and drawn of a transfer: glyph, words, times, and the sparkline of its rate."""

from __future__ import annotations

from mlxk_tui.ops.core.text import age, iso_utc, printable, spaced_size
from mlxk_tui.transfers.jobs import Push, Transfer, TransferState
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
    """Return one cell that tells the state without colour, and its token."""
    if transfer.state is TransferState.RUNNING:
        return ("↑" if transfer.is_push else "↓"), "accent"
    if transfer.state is TransferState.WAITING and transfer.failure is not None:
        return "↻", "attention"
    return _GLYPHS[transfer.state]


def org(transfer: Transfer) -> str:
    """Return the organisation, safe to show; empty where the name has none."""
    return printable(transfer.job.name.rpartition("/")[0])


def duration(seconds: float) -> str:
    """Return a time of at most a few days in at most seven cells: `8s`, `2m 05s`, `3h 20m`, `4d`."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours < 48 else f"{hours // 24}d"


def amount(transfer: Transfer) -> str:
    """Return how much is done: `1.21 of 2.28 GB`; empty while nothing is known."""
    if not transfer.bytes_total:
        return ""
    if transfer.state is TransferState.DONE:
        return spaced_size(transfer.bytes_total)
    done, total = spaced_size(transfer.bytes_done), spaced_size(transfer.bytes_total)
    number, _, unit = done.partition(" ")
    return f"{number} of {total}" if total.endswith(f" {unit}") else f"{done} of {total}"


def doing(transfer: Transfer, now: float) -> str:
    """Return what a running transfer does at `now`, in seconds of the monotonic clock."""
    if not transfer.bytes_total:
        return "comparing with the hub" if transfer.is_push else "asking the hub"
    if transfer.stage == "wait":
        return "waiting for another program that fetches it"
    if transfer.stage == "verify" and transfer.bytes_done >= transfer.bytes_total:
        return "comparing checksums"
    if transfer.rates.stalled(now):
        return "waiting for the hub"
    return "uploading" if transfer.is_push else "fetching"


def standing(transfer: Transfer, now: float, wall: float) -> str:
    """Return the state in a few words, the time with it.

    Args:
        transfer: what it is about.
        now: seconds of the monotonic clock.
        wall: seconds since the epoch.
    """
    if transfer.state is TransferState.RUNNING:
        return doing(transfer, now)
    if transfer.state is TransferState.WAITING:
        if transfer.retry_at is not None:
            return f"tries again in {duration(max(0.0, transfer.retry_at - now))}"
        return "waiting"
    if transfer.state is TransferState.PAUSED:
        return "paused" if transfer.share is None else f"paused at {transfer.share:.0%}"
    if transfer.state is TransferState.FAILED:
        return "failed"
    word = (
        "cancelled"
        if transfer.state is TransferState.CANCELLED
        else "pushed"
        if transfer.is_push
        else "pulled"
    )
    return f"{word} {ended(transfer, wall)}".rstrip()


def ended(transfer: Transfer, wall: float) -> str:
    """Return how long ago it ended; empty while it has not."""
    from datetime import datetime, timezone

    iso = iso_utc(transfer.ended)
    return age(iso, datetime.fromtimestamp(wall, timezone.utc)) if iso else ""


def cause(transfer: Transfer) -> str:
    """Return why the last attempt failed, as a safe sentence."""
    return error_text(transfer.failure.error) if transfer.failure is not None else ""


def rate_text(rate: float) -> str:
    """Return bytes per second: `54.3 MB/s`; a dash where nothing moves."""
    return f"{spaced_size(int(rate))}/s" if rate >= 1 else "–"


def headline(transfer: Transfer) -> str:
    """Return what is moved where, safe to show."""
    if isinstance(transfer.job, Push):
        return f"{printable(transfer.job.folder)} to {printable(transfer.job.repo)}"
    return printable(transfer.job.name)
