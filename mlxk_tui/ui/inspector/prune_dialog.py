"""The confirmation before the cache is pruned of the leftovers of downloads and updates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ui.widgets.dialogs import Dialog, DialogList
from mlxk_tui.ui.widgets.text import Part, lines, pad

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import PruneData

_WIDTH = 65
_SIZE = 9
_MAX_ROWS = 200


class PruneDialog(Dialog):
    """Lists unreferenced revisions, orphan files and unfinished downloads, with their sizes."""

    def __init__(self, plan: PruneData) -> None:
        super().__init__("Prune the cache?", proceed="Prune", danger=True)
        self._plan = plan

    def body(self) -> Iterable[Widget]:
        plan = self._plan
        groups = (
            ("unreferenced revision", [(r.name, r.hash[:8], r.freed_bytes) for r in plan.revisions]),
            ("orphan file", [(b.name, b.path, b.freed_bytes) for b in plan.blobs]),
            ("unfinished download", [(b.name, b.path, b.freed_bytes) for b in plan.incomplete]),
        )
        rows: list[list[Part]] = []
        for noun, items in groups:
            if not items:
                continue
            if rows:
                rows.append([])
            rows.append([(plural(len(items), noun), "$strong")])
            for name, detail, freed in items[:_MAX_ROWS]:
                short = detail.rpartition("/")[2][:14]
                shown = f"  {printable(name)}  {printable(short)}"
                rows.append(
                    [(pad(shown, _WIDTH - _SIZE), "$muted"), (pad(format_size(freed), _SIZE, right=True), "")]
                )
            if len(items) > _MAX_ROWS:
                rows.append([(f"  … and {len(items) - _MAX_ROWS:,} more", "$muted")])
        yield DialogList(rows)
        yield Static(
            lines(
                [
                    [
                        ("Frees ", "$muted"),
                        (format_size(plan.freed_bytes), "bold"),
                        (" on disk. This can't be undone.", "$muted"),
                    ]
                ]
            ),
            classes="dialog-total",
        )
