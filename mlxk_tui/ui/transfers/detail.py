"""Details of one transfer: progress, the rate of the last minute, files, or why it failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import getters
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.transfers.jobs import FileProgress, Push, Transfer, TransferState
from mlxk_tui.transfers.rates import HISTORY_SECONDS
from mlxk_tui.ui.inspector.pull_actions import short_name
from mlxk_tui.ui.transfers.text import amount, duration, failure_text, glyph, rate_text, state_text
from mlxk_tui.ui.widgets.scrolling import scroll_bindings
from mlxk_tui.ui.widgets.sparkline import sparkline
from mlxk_tui.ui.widgets.text import Part, bar, cut, flush_right, lines, pad, wrap

_MAX_FILES = 200
_FILE_BAR = 10
_SPARK_ROWS = 3
_MAX_WIDTH = 96
"""Longest line that is comfortable to read, in cells."""


class DetailBody(VerticalScroll):
    """The scrolling content."""

    BINDING_GROUP_TITLE = "Transfers: details"
    BINDINGS: ClassVar[list[BindingType]] = scroll_bindings("transfer")


class TransferDetail(Vertical):
    """Shows one transfer; its progress is updated in place.

    Args:
        now: returns seconds of the monotonic clock.
        wall: returns seconds since the epoch.
    """

    body = getters.query_one(DetailBody)
    text = getters.query_one("#transfer-text", Static)

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
        self._transfer: Transfer | None = None
        self._height = -1

    def compose(self) -> ComposeResult:
        with DetailBody():
            yield Static(id="transfer-text", markup=False)

    def show(self, transfer: Transfer | None) -> None:
        """Show a transfer; the scroll position stays if it is the same one."""
        if transfer is not self._transfer:
            same = transfer and self._transfer and transfer.id == self._transfer.id
            self._transfer = transfer
            if not same:
                self.body.scroll_home(animate=False)
        self.draw()

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        width = self.body.scrollable_content_region.width
        if width <= 0:
            return
        transfer = self._transfer
        name = short_name(transfer) if transfer is not None else "Transfer"
        self.border_title = Content(cut(name, max(8, self.size.width - 4)))
        if transfer is None:
            rows: list[list[Part]] = [[("No transfer selected.", "$muted")]]
        else:
            rows = describe(transfer, self._now(), self._wall(), min(width, _MAX_WIDTH))
        # The same number of lines needs no new layout.
        self.text.update(lines(rows), layout=len(rows) != self._height)
        self._height = len(rows)


def describe(transfer: Transfer, now: float, wall: float, width: int) -> list[list[Part]]:
    """Return the description of a transfer as lines; styles are theme tokens."""
    mark, token = glyph(transfer)
    state = state_text(transfer, now, wall)
    rows: list[list[Part]] = [
        [(cut(printable(transfer.job.name), width), "$muted")],
        [],
        [(f"{mark} ", f"${token}"), (state[:1].upper() + state[1:], f"${token}")],
    ]
    if transfer.failure is not None:
        rows += [[("  ", ""), (text, "")] for text in wrap(failure_text(transfer), width - 2)]
        if transfer.state is TransferState.FAILED:
            rows += [[], _keys(("r", "retry"), ("x", "remove from the list"))]
        else:
            attempts = f"{plural(transfer.attempts, 'failed attempt')}. Downloaded data is kept."
            rows += [[("  ", ""), (text, "$muted")] for text in wrap(attempts, width - 2)]
    elif transfer.state is TransferState.DONE:
        rows += [[("  ", ""), (text, "$muted")] for text in wrap(printable(transfer.result), width - 2)]
    elif transfer.state is TransferState.CANCELLED:
        hint = "Downloaded data is kept. Press r to resume."
        rows += [[("  ", ""), (text, "$muted")] for text in wrap(hint, width - 2)]
    if transfer.fraction is not None and transfer.state is not TransferState.DONE:
        rows += [[], *_progress(transfer, now, width)]
    if transfer.state is TransferState.RUNNING and transfer.fraction is not None:
        rows += [[], *_rate(transfer, now, width)]
    rows += _job_facts(transfer, width)
    if transfer.files and transfer.state is not TransferState.DONE:
        rows += [[], *_files(transfer, width)]
    return rows


def _keys(*keys: tuple[str, str]) -> list[Part]:
    parts: list[Part] = [("  ", "")]
    for key, description in keys:
        parts += [(key, "$accent bold"), (f" {description}   ", "$muted")]
    return parts


def _progress(transfer: Transfer, now: float, width: int) -> list[list[Part]]:
    share = transfer.fraction or 0
    moving = transfer.state is TransferState.RUNNING
    drawn, rest = bar(share, max(4, width - 6))
    left = transfer.seconds_left(now) if moving else None
    numbers: list[Part] = [(amount(transfer), "")]
    time: list[Part] = [(f"{duration(left)} left", "$muted")] if left is not None else []
    return [
        [(drawn, "$accent" if moving else "$muted"), (rest, "$line"), (f"{share:>6.0%}", "")],
        [*numbers, *flush_right(numbers, time, width)],
    ]


def _rate(transfer: Transfer, now: float, width: int) -> list[list[Part]]:
    history = transfer.rates.history(now)
    label: list[Part] = [("Rate", "$strong"), (f"  {rate_text(transfer.rates.rate(now))}", "")]
    peak = max(history, default=0)
    peak_text: list[Part] = [(f"peak {format_size(peak)}/s", "$faint")] if peak else []
    cells = min(width, HISTORY_SECONDS)
    rows: list[list[Part]] = [[*label, *flush_right(label, peak_text, cells)]]
    rows += [[(drawn, "$accent")] for drawn in sparkline(history, cells, _SPARK_ROWS)]
    begin, end = "1 min ago" if cells == HISTORY_SECONDS else f"{cells} s ago", "now"
    room = cells - len(begin) - len(end)
    rows.append([(f"{begin}{' ' * max(1, room)}{end}", "$faint")])
    return rows


def _job_facts(transfer: Transfer, width: int) -> list[list[Part]]:
    job = transfer.job
    facts: list[tuple[str, str]] = []
    if isinstance(job, Push):
        facts = [
            ("From", printable(job.folder)),
            ("Branch", printable(job.branch)),
            ("Message", printable(job.message)),
        ]
    else:
        facts = [("Revision", printable(job.revision))] if job.revision else []
        facts += [("Limit", rate_text(job.rate_limit))] if job.rate_limit is not None else []
    rows: list[list[Part]] = [[]] if facts else []
    for label, value in facts:
        for number, text in enumerate(wrap(value, width - 10)):
            rows.append([(pad(label if number == 0 else "", 10), "$muted"), (text, "")])
    return rows


def _files(transfer: Transfer, width: int) -> list[list[Part]]:
    total = transfer.files_total
    head: list[Part] = [("Files", "$strong")]
    counted = f"{transfer.files_done:,} of {total:,} done" if total else ""
    rows: list[list[Part]] = [[*head, *flush_right(head, [(counted, "$muted")], width)]]
    # Unfinished files come first; within a group, in the order in which they started.
    files = sorted(transfer.files.items(), key=lambda item: item[1].complete)
    rows += [_file(path, file, width) for path, file in files[:_MAX_FILES]]
    if len(files) > _MAX_FILES:
        rows.append([(f"… and {plural(len(files) - _MAX_FILES, 'more file')}", "$muted")])
    return rows


def _file(path: str, file: FileProgress, width: int) -> list[Part]:
    name = pad(printable(path), max(8, width - _FILE_BAR - 17))
    share = min(1.0, file.done / file.total) if file.total else 1.0
    drawn, rest = bar(share, _FILE_BAR)
    size = pad(format_size(file.total), 8, right=True)
    if file.complete:
        return [(name, "$muted"), (" " * (_FILE_BAR + 6), ""), ("✓", "$good"), (size, "$muted")]
    return [
        (name, ""),
        ("  ", ""),
        (drawn, "$accent"),
        (rest, "$line"),
        (f"{share:>5.0%}", ""),
        (size, "$muted"),
    ]
