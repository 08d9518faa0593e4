"""The list of findings, grouped by model: broken models, then those that can't run, then a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from rich.cells import cell_len

from mlxk_tui.ops.contract.terms import Severity
from mlxk_tui.ops.core.text import format_size, plural
from mlxk_tui.services.library import DEFAULT_ORG, Entry, ModelState
from mlxk_tui.ui.inspector.description import DOWNLOADING, checksum_sentence, findings_rows
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.text import Part, cut, wrap

_INDENT = 4
_MAX_FINDINGS = 5
_MAX_TEXT = 96
"""Longest line that is comfortable to read, in cells."""


@dataclass(frozen=True)
class Section:
    """A heading and the models below it."""

    id: str
    title: str
    glyph: str
    token: str
    entries: tuple[Entry, ...]


def sections(entries: Iterable[Entry]) -> list[Section]:
    """Return the models that have findings, the worst first; empty sections are left out."""
    ordered = sorted(entries, key=lambda entry: (entry.short.casefold(), entry.org.casefold()))
    broken = [entry for entry in ordered if entry.state is ModelState.BAD]
    downloading = [entry for entry in ordered if entry.state is ModelState.DOWNLOADING]
    not_runnable = [entry for entry in ordered if entry.intact and not entry.model.runtime_compatible]
    warned = [
        entry
        for entry in ordered
        if entry.intact
        and entry.model.runtime_compatible
        and (
            entry.state is not ModelState.GOOD or any(f.severity is Severity.WARNING for f in entry.findings)
        )
    ]
    candidates = (
        Section("broken", "Broken", "✗", "bad", tuple(broken)),
        Section("downloading", "Downloading", "↓", "accent", tuple(downloading)),
        Section("not-runnable", "Intact, but can't run here", "▲", "attention", tuple(not_runnable)),
        Section("warnings", "Warnings", "▲", "attention", tuple(warned)),
    )
    return [section for section in candidates if section.entries]


class HealthList(RowList):
    """One model per row, with a line for each of its findings."""

    def __init__(self, *, now: Callable[[], datetime], id: str | None = None) -> None:  # noqa: A002 - as Textual has it
        super().__init__(id=id)
        self._now = now
        self._entries: list[Entry] = []
        self._blocks: dict[str, list[list[Part]]] = {}
        self._width = 0

    def show(self, entries: Iterable[Entry]) -> None:
        self._entries = list(entries)
        self._layout()

    def on_resize(self) -> None:
        if self.scrollable_content_region.width != self._width:
            self._layout()

    def _layout(self) -> None:
        self._width = self.scrollable_content_region.width
        if self._width <= 0:
            return
        self._blocks = {}
        rows: list[ListRow] = []

        def add(key: str, block: list[list[Part]], *, selectable: bool) -> None:
            self._blocks[key] = block
            rows.append(ListRow(key, len(block), selectable))

        for section in sections(self._entries):
            heading: list[list[Part]] = [
                [(f"{section.title}  ", "strong"), (str(len(section.entries)), section.token)],
                [],
            ]
            add(f"#{section.id}", heading, selectable=False)
            for entry in section.entries:
                add(entry.key, self._block(entry), selectable=True)
                add(f"#after {entry.key}", [[]], selectable=False)
        summary = self._summary()
        add("#summary", summary, selectable=False)
        self.set_rows(rows)

    def _block(self, entry: Entry) -> list[list[Part]]:
        width = self._width - 1
        size = format_size(entry.model.disk_bytes)
        name = cut(entry.short, max(12, width - len(size) - 4))
        head: list[Part] = [(f"{entry.state.glyph} ", entry.state.token), (name, "strong")]
        left = width - 2 - cell_len(name) - len(size) - 2
        if entry.org not in {"", DEFAULT_ORG} and left > 8:
            org = cut(entry.org, left - 3)
            head.append((f"  {org}", "faint"))
            left -= 2 + cell_len(org)
        head += [(" " * max(1, left), ""), (size, "muted")]
        block: list[list[Part]] = [head]
        room = min(_MAX_TEXT, width - _INDENT - 1)
        if entry.state is ModelState.DOWNLOADING:
            found: list[list[Part]] = [[("  ", ""), (text, "muted")] for text in wrap(DOWNLOADING, room)]
        else:
            found = findings_rows(entry.findings, entry.model.name, room, limit=_MAX_FINDINGS)
        block += [[("  ", ""), *row] for row in found]
        if entry.verified is not None:
            block += [
                [(" " * 4, ""), (text, "faint")] for text in wrap(checksum_sentence(entry, self._now()), room)
            ]
        return block

    def _summary(self) -> list[list[Part]]:
        total = len(self._entries)
        good = sum(entry.state is ModelState.GOOD for entry in self._entries)
        verified = sum(entry.verified is not None for entry in self._entries)
        ready = f"{plural(good, 'model')} healthy and ready to run"
        if good == total > 1:
            ready = f"All {ready}"
        rows: list[list[Part]] = [[("✓ ", "good"), (ready, "strong" if good == total else "")]]
        rows.append([("  ", ""), (f"Checksums verified this session: {verified:,} of {total:,}", "muted")])
        if verified < total:
            rows.append([("  ", ""), ("V", "accent"), (" verify all models", "muted")])
        return rows

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        return self._blocks[row.key][number]
