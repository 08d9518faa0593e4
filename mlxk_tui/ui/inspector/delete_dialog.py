"""The confirmation before models are deleted: what is deleted and how much space that frees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.remove.remove import RemovePlan
from mlxk_tui.services.library import Entry
from mlxk_tui.ui.widgets.dialogs import Dialog, DialogList
from mlxk_tui.ui.widgets.text import Part, lines, pad

_WIDTH = 65
_SIZE = 9


class DeleteDialog(Dialog):
    """Lists the models with their files and sizes, and the locks of other processes."""

    def __init__(self, plans: Sequence[tuple[Entry, RemovePlan]]) -> None:
        locked = any(plan.held_locks for _, plan in plans)
        title = "Delete this model?" if len(plans) == 1 else f"Delete {len(plans)} models?"
        super().__init__(title, proceed="Delete anyway" if locked else "Delete", danger=True)
        self._plans = plans

    def body(self) -> Iterable[Widget]:
        rows: list[list[Part]] = []
        for entry, plan in self._plans:
            rows.append(
                [
                    (pad(entry.short, _WIDTH - _SIZE), "$strong"),
                    (pad(format_size(plan.freed_bytes), _SIZE, right=True), ""),
                ]
            )
            parts = [entry.org, plural(plan.files, "file"), plural(plan.revisions, "revision")]
            rows.append([("  " + " · ".join(part for part in parts if part), "$muted")])
            rows += [
                [("  ▲ ", "$attention"), (f"in use by another process: {printable(lock)}", "")]
                for lock in plan.held_locks[:3]
            ]
        yield DialogList(rows)
        freed = sum(plan.freed_bytes for _, plan in self._plans)
        total: list[list[Part]] = [
            [
                ("Frees ", "$muted"),
                (format_size(freed), "bold"),
                (" on disk. This can't be undone.", "$muted"),
            ]
        ]
        if any(entry.model.disk_bytes > plan.freed_bytes for entry, plan in self._plans):
            total.append([("Files that other models share are kept.", "$muted")])
        yield Static(lines(total), classes="dialog-total")
