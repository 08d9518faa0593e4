"""Applies the progress events of runners to transfers."""

from __future__ import annotations

from collections import deque

from mlxk_tui.ops.core.events import Progress
from mlxk_tui.transfers.jobs import MAX_FILES, FileProgress, Transfer

_EVENT_SECONDS = 0.5
_BEFORE_EVENT = 100_000
_BEFORE_EVENT_IF_COMPLETE = 20_000_000
"""Bytes that can be transferred before a file's first event; more if the file is complete by then."""


def apply_progress(transfer: Transfer, events: deque[Progress]) -> None:
    """Apply all queued events to a transfer and its files; `events` is empty afterwards."""
    last: Progress | None = None
    while events:
        last = events.popleft()
        if last.file and last.file_bytes_total:
            _apply_to_file(transfer, last)
    if last is not None:
        if transfer.bytes_total != last.bytes_total:  # another step: the bytes so far were only checked
            transfer.rates.reset()
        transfer.stage = last.stage
        transfer.bytes_done, transfer.bytes_total = last.bytes_done, last.bytes_total
        transfer.files_done, transfer.files_total = last.files_done, last.files_total


def _apply_to_file(transfer: Transfer, event: Progress) -> None:
    file = transfer.files.get(event.file)
    if file is None:
        if len(transfer.files) >= MAX_FILES:
            return
        file = transfer.files[event.file] = FileProgress(0, 0)
        # More bytes than fit between two events come from an earlier attempt or another process.
        complete = event.file_bytes_done >= event.file_bytes_total
        allowance = _BEFORE_EVENT_IF_COMPLETE if complete else _BEFORE_EVENT
        if event.file_bytes_done > event.rate * _EVENT_SECONDS + allowance:
            transfer.rates.skip(event.file_bytes_done)
    file.done, file.total = event.file_bytes_done, event.file_bytes_total
