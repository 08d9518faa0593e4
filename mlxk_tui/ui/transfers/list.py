"""The list of transfers: what is to be done in its order, then what is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size

from mlxk_tui.services.library import DEFAULT_ORG
from mlxk_tui.transfers.jobs import Transfer, TransferState
from mlxk_tui.ui.inspector.pull_actions import short_name
from mlxk_tui.ui.transfers.text import (
    amount,
    cause,
    duration,
    glyph,
    org,
    rate_text,
    standing,
)
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, bar, cut, flush_right, pad

_INDENT = 2
_TAIL = 22
"""Cells for rate and time behind the bar, so that it does not change its length."""
_MIN_NAME = 16
FINISHED = "#finished"
"""Key of the heading over what is finished."""


def height(transfer: Transfer) -> int:
    """Return how many lines a transfer takes: a second one for a bar, or for what went wrong."""
    return 2 if transfer.state is TransferState.RUNNING or transfer.failure is not None else 1


class TransferList(RowList):
    """The rows.

    Args:
        now: seconds of the monotonic clock.
        wall: seconds since the epoch.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"line"}

    def __init__(
        self,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self._now = now
        self._wall = wall
        self._transfers: dict[str, Transfer] = {}

    def show(self, transfers: Sequence[Transfer]) -> None:
        """Show these; only rows that are on screen cost anything."""
        self._transfers = {transfer.id: transfer for transfer in transfers}
        rows = [
            ListRow(transfer.id, height(transfer)) for transfer in transfers if not transfer.state.finished
        ]
        finished = [ListRow(transfer.id) for transfer in transfers if transfer.state.finished]
        if finished:
            rows += [ListRow(FINISHED, 2 if rows else 1, selectable=False), *finished]
        self.set_rows(rows)

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        """Draw one line of a transfer."""
        if row.key == FINISHED:
            return [("Finished", "muted")] if number == row.height - 1 else []
        transfer = self._transfers[row.key]
        width -= 1  # air before the scrollbar
        if number == 0:
            return self._first(transfer, width)
        if transfer.state is TransferState.RUNNING:
            return self._moving(transfer, width)
        return [(" " * _INDENT, ""), (_end(cause(transfer), width - _INDENT), "muted")]

    def _first(self, transfer: Transfer, width: int) -> list[Part]:
        mark, token = glyph(transfer)
        right = self._right(transfer)
        taken = sum(cell_len(text) for text, _ in right)
        quiet = transfer.state.finished
        name = cut(short_name(transfer), max(_MIN_NAME, width - _INDENT - taken - 2))
        parts: list[Part] = [(f"{mark} ", token), (name, "" if quiet else "strong")]
        room = width - _INDENT - cell_len(name) - taken - 4
        if org(transfer) not in {"", DEFAULT_ORG} and cell_len(org(transfer)) <= room:
            parts.append((f"  {org(transfer)}", "faint"))
        return [*parts, *flush_right(parts, right, width)]

    def _right(self, transfer: Transfer) -> list[Part]:
        if transfer.state is TransferState.RUNNING:
            if transfer.share is None:
                return []
            return [(amount(transfer), "muted"), (f"{transfer.share:>6.0%}", "")]
        words = standing(transfer, self._now(), self._wall())
        token = {TransferState.FAILED: "bad", TransferState.PAUSED: "attention"}.get(transfer.state, "muted")
        much = amount(transfer) if transfer.state in {TransferState.DONE, TransferState.PAUSED} else ""
        if transfer.state is TransferState.PAUSED and much:
            words = "paused"
            return [(f"{words}   ", token), (much, "muted"), (f"{transfer.share or 0:>6.0%}", "muted")]
        return [(much, "muted"), (f"{'   ' if much else ''}{words}", token)]

    def _moving(self, transfer: Transfer, width: int) -> list[Part]:
        cells = max(4, width - _INDENT - _TAIL)
        if transfer.share is None:
            return [(" " * _INDENT, ""), (standing(transfer, self._now(), self._wall()) + " …", "muted")]
        drawn, rest = bar(transfer.share, cells)
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


def _end(text: str, width: int) -> str:
    """Return a sentence cut at its end: its beginning says what it is about."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"
