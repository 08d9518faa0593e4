"""Disk usage: the total, a bar for each organization, and the largest models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.cells import cell_len
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from mlxk_tui.ops.core.text import format_size, plural
from mlxk_tui.services.library import Entry
from mlxk_tui.ui.widgets.text import Part, bar, lines, pad

_SIZE = 8
_MAX_BARS = 30
_MIN_BAR = 6
_MAX_BAR = 40
_MAX_LARGEST = 8


class DiskUsage(VerticalScroll):
    """The disk usage of the cache."""

    def compose(self) -> Iterable[Static]:
        yield Static(id="disk-text", markup=False)

    def on_mount(self) -> None:
        self.border_title = "Disk usage"

    def show(self, entries: list[Entry]) -> None:
        width = self.scrollable_content_region.width
        if width > 0:
            self.query_one("#disk-text", Static).update(describe(entries, width))


def describe(entries: list[Entry], width: int) -> Content:
    """Return the total, bars by organization, and the largest models."""
    usage: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for entry in entries:
        usage[entry.org or "(no organization)"] += entry.model.disk_bytes
        count[entry.org or "(no organization)"] += 1
    total = sum(usage.values())
    rows: list[list[Part]] = [
        [(format_size(total), "$strong bold"), (f"  in {plural(len(entries), 'model')}", "$muted")],
        [],
        [("By organization", "$strong")],
    ]
    most = usage.most_common(_MAX_BARS)
    # Names get the width first: a short bar is readable, a truncated name is not.
    longest = max((cell_len(org) for org, _ in most), default=0)
    name_width = max(10, min(longest, width - 7 - _SIZE - _MIN_BAR))
    cells = max(_MIN_BAR, min(_MAX_BAR, width - name_width - _SIZE - 7))
    peak = most[0][1] if most else 1
    for org, used in most:
        drawn, rest = bar(used / peak if peak else 0, cells)
        rows.append(
            [
                (pad(org, name_width), ""),
                (f" {pad(str(count[org]), 4, right=True)}  ", "$muted"),
                (drawn, "$accent"),
                (rest, "$line"),
                (pad(format_size(used), _SIZE, right=True), ""),
            ]
        )
    if len(usage) > _MAX_BARS:
        rows.append([(f"… and {len(usage) - _MAX_BARS} more", "$muted")])
    largest = sorted(entries, key=lambda entry: -entry.model.disk_bytes)[:_MAX_LARGEST]
    if largest:
        rows += [[], [("Largest models", "$strong")]]
        rows += [
            [
                (pad(entry.short, width - _SIZE), ""),
                (pad(format_size(entry.model.disk_bytes), _SIZE, right=True), ""),
            ]
            for entry in largest
        ]
    return lines(rows)
