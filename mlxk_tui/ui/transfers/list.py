"""The list of transfers: the queue in its order, then the finished ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import cell_len

from mlxk_tui.services.library import DEFAULT_ORG
from mlxk_tui.transfers.jobs import Transfer, TransferState
from mlxk_tui.ui.inspector.pull_actions import short_name
from mlxk_tui.ui.transfers.text import amount, duration, failure_text, glyph, org, rate_text, state_text
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, bar, cut, cut_end, flush_right, pad

_INDENT = 2
_TAIL = 22
"""Cells for rate and remaining time after the bar, whose length stays the same."""
_MIN_NAME = 16
FINISHED = "#finished"
"""Key of the heading above the finished transfers."""


def height(transfer: Transfer) -> int:
    """Return the lines of a transfer: a second one for the progress bar or the failure."""
    return 2 if transfer.state is TransferState.RUNNING or transfer.failure is not None else 1


class TransferList(RowList):
    """One transfer per row.

    Args:
        now: returns seconds of the monotonic clock.
        wall: returns seconds since the epoch.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"line"}

    def __init__(
        self,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
        id: str | None = None,  # noqa: A002 - as Textual has it
    ) -> None:
        super().__init__(id=id)
        self._now = now
        self._wall = wall
        self._transfers: dict[str, Transfer] = {}

    def show(self, transfers: Sequence[Transfer]) -> None:
        self._transfers = {transfer.id: transfer for transfer in transfers}
        rows = [
            ListRow(transfer.id, height(transfer)) for transfer in transfers if not transfer.state.finished
        ]
        finished = [ListRow(transfer.id) for transfer in transfers if transfer.state.finished]
        if finished:
            rows += [ListRow(FINISHED, 2 if rows else 1, selectable=False), *finished]
        self.set_rows(rows)

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        if row.key == FINISHED:
            return [("Finished", "muted")] if number == row.height - 1 else []
        transfer = self._transfers[row.key]
        width -= 1  # padding before the scrollbar
        if number == 0:
            return self._title_line(transfer, width)
        if transfer.state is TransferState.RUNNING:
            return self._progress_line(transfer, width)
        return [(" " * _INDENT, ""), (cut_end(failure_text(transfer), width - _INDENT), "muted")]

    def _title_line(self, transfer: Transfer, width: int) -> list[Part]:
        mark, token = glyph(transfer)
        right = self._status(transfer)
        used = sum(cell_len(text) for text, _ in right)
        name = cut(short_name(transfer), max(_MIN_NAME, width - _INDENT - used - 2))
        parts: list[Part] = [(f"{mark} ", token), (name, "" if transfer.state.finished else "strong")]
        room = width - _INDENT - cell_len(name) - used - 4
        if org(transfer) not in {"", DEFAULT_ORG} and cell_len(org(transfer)) <= room:
            parts.append((f"  {org(transfer)}", "faint"))
        return [*parts, *flush_right(parts, right, width)]

    def _status(self, transfer: Transfer) -> list[Part]:
        if transfer.state is TransferState.RUNNING:
            if transfer.fraction is None:
                return []
            return [(amount(transfer), "muted"), (f"{transfer.fraction:>6.0%}", "")]
        state = state_text(transfer, self._now(), self._wall())
        token = {TransferState.FAILED: "bad", TransferState.PAUSED: "attention"}.get(transfer.state, "muted")
        size = amount(transfer) if transfer.state in {TransferState.DONE, TransferState.PAUSED} else ""
        if transfer.state is TransferState.PAUSED and size:
            return [("paused   ", token), (size, "muted"), (f"{transfer.fraction or 0:>6.0%}", "muted")]
        return [(size, "muted"), (f"{'   ' if size else ''}{state}", token)]

    def _progress_line(self, transfer: Transfer, width: int) -> list[Part]:
        cells = max(4, width - _INDENT - _TAIL)
        if transfer.fraction is None:
            return [(" " * _INDENT, ""), (state_text(transfer, self._now(), self._wall()) + " …", "muted")]
        drawn, rest = bar(transfer.fraction, cells)
        rate = transfer.rates.rate(self._now())
        left = transfer.seconds_left(self._now())
        time = duration(left) if left is not None else ""
        return [
            (" " * _INDENT, ""),
            (drawn, "accent"),
            (rest, "line"),
            (pad(rate_text(rate) if rate >= 1 else "", 12, right=True), ""),
            (pad(time, _TAIL - 12, right=True), "muted"),
        ]
