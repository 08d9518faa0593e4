"""What runners report of a transfer, put into it."""

from __future__ import annotations

from collections import deque

from mlxk_tui.ops.core.events import Progress
from mlxk_tui.transfers.jobs import MAX_FILES, FileProgress, Transfer

_EVENT_SECONDS = 0.5
_AT_ONCE = 100_000
_WHOLE_AT_ONCE = 20_000_000
"""Bytes that may have come before the first event of a file, of one that is whole already."""


def take_in(transfer: Transfer, events: deque[Progress]) -> None:
    """Empty a queue of events into the figures of a transfer and its files."""
    last: Progress | None = None
    while events:
        last = events.popleft()
        if last.file and last.file_bytes_total:
            _take_in_file(transfer, last)
    if last is not None:
        if transfer.bytes_total != last.bytes_total:  # what was looked at is not what is fetched
            transfer.rates.begin()
        transfer.stage = last.stage
        transfer.bytes_done, transfer.bytes_total = last.bytes_done, last.bytes_total
        transfer.files_done, transfer.files_total = last.files_done, last.files_total


def _take_in_file(transfer: Transfer, event: Progress) -> None:
    file = transfer.files.get(event.file)
    if file is None:
        if len(transfer.files) >= MAX_FILES:
            return
        file = transfer.files[event.file] = FileProgress(0, 0)
        # More than can have come since the last event: an earlier attempt brought it, or another process.
        whole = event.file_bytes_done >= event.file_bytes_total
        if event.file_bytes_done > event.rate * _EVENT_SECONDS + (_WHOLE_AT_ONCE if whole else _AT_ONCE):
            transfer.rates.skip(event.file_bytes_done)
    file.done, file.total = event.file_bytes_done, event.file_bytes_total
