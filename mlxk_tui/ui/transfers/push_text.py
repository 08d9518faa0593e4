"""The folder of a push as text: its health, and what the push would change."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.ops.contract.results import WorkspaceHealth
from mlxk_tui.ops.contract.transfers import PushData
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ui.widgets.text import Part, cut, sentence, wrap

_MAX_ANOMALIES = 3
_MAX_LINES = 2
"""Lines of an anomaly; the full list is checked again before the upload."""
_MAX_FILES = 500


def workspace_rows(health: WorkspaceHealth, width: int) -> list[list[Part]]:
    """Return the health of a folder, the worst anomaly first."""
    files = f"{plural(health.files_count, 'file')}, {format_size(health.total_bytes)}"
    worst = [("✗", "$bad") if item.severity == "error" else ("▲", "$attention") for item in health.anomalies]
    if not health.anomalies:
        return [[("✓ ", "$good"), (f"{files}; no problems found", "")]]
    count = plural(len(health.anomalies), "problem" if not health.healthy else "warning")
    rows: list[list[Part]] = [[(f"{worst[0][0]} ", worst[0][1]), (f"{files}; {count}:", "")]]
    for anomaly, (glyph, style) in list(zip(health.anomalies, worst, strict=True))[:_MAX_ANOMALIES]:
        for number, text in enumerate(wrap(sentence(anomaly.message), width - 4)[:_MAX_LINES]):
            rows.append([(f"  {glyph} " if number == 0 else "    ", style), (text, "$muted")])
    if len(health.anomalies) > _MAX_ANOMALIES:
        rows.append([(f"    … and {len(health.anomalies) - _MAX_ANOMALIES:,} more", "$muted")])
    return rows


def summary_rows(plan: PushData) -> list[list[Part]]:
    """Return the summary of a push."""
    if plan.no_changes:
        return [[("✓ ", "$good"), ("Nothing to push: the hub has the same files.", "")]]
    changed = plan.change_summary
    parts: list[Part] = [
        (f"+{changed.added} ", "$good"),
        ("new   ", "$muted"),
        (f"~{changed.modified} ", "$attention"),
        ("changed   ", "$muted"),
        (f"−{changed.deleted} ", "$bad"),
        ("deleted on the hub", "$muted"),
    ]
    rows = [parts]
    if plan.bytes_total is not None:
        rows.append([(f"{format_size(plan.bytes_total)} to upload", "$muted")])
    created = [
        text
        for text, would_create in (
            ("a private repo", plan.would_create_repo),
            (f"the branch {printable(plan.branch)}", plan.would_create_branch),
        )
        if would_create
    ]
    if created:
        rows.append([("Creates ", "$muted"), (" and ".join(created), "")])
    return rows


def change_rows(plan: PushData, width: int) -> list[list[Part]]:
    """Return the files that a push would change, one per line."""
    groups: tuple[tuple[str, str, Sequence[str]], ...] = (
        ("+", "$good", plan.added_files or ()),
        ("~", "$attention", plan.modified_files or ()),
        ("−", "$bad", (plan.deleted_files or ()) if plan.change_summary.deleted else ()),
    )
    rows: list[list[Part]] = []
    for sign, style, names in groups:
        rows += [[(f"{sign} ", style), (cut(printable(name), width - 2), "")] for name in names[:_MAX_FILES]]
        if len(names) > _MAX_FILES:
            rows.append([("  ", ""), (f"… and {plural(len(names) - _MAX_FILES, 'more file')}", "$muted")])
    return rows
