"""What is said about a folder that is to be pushed: its state, and exactly what would change."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.ops.contract.results import WorkspaceHealth
from mlxk_tui.ops.contract.transfers import PushData
from mlxk_tui.ops.core.text import plural, printable, spaced_size
from mlxk_tui.ui.widgets.text import Part, cut, sentence, wrap

_MAX_ANOMALIES = 3
_MAX_LINES = 2
"""Lines of each; the health of the folder is judged in full before anything is uploaded."""
_MAX_FILES = 500


def workspace(health: WorkspaceHealth, width: int) -> list[list[Part]]:
    """Return the verdict on a folder, the worst first."""
    files = f"{plural(health.files_count, 'file')}, {spaced_size(health.total_bytes)}"
    worst = [("✗", "$bad") if item.severity == "error" else ("▲", "$attention") for item in health.anomalies]
    if not health.anomalies:
        return [[("✓ ", "$good"), (f"{files}; nothing is wrong with it.", "")]]
    count = plural(len(health.anomalies), "thing")
    good = "not sound" if not health.healthy else "sound"
    rows: list[list[Part]] = [[(f"{worst[0][0]} ", worst[0][1]), (f"{files}; {good}, {count} to know:", "")]]
    for anomaly, (glyph, style) in list(zip(health.anomalies, worst, strict=True))[:_MAX_ANOMALIES]:
        for number, text in enumerate(wrap(sentence(anomaly.message), width - 4)[:_MAX_LINES]):
            rows.append([(f"  {glyph} " if number == 0 else "    ", style), (text, "$muted")])
    if len(health.anomalies) > _MAX_ANOMALIES:
        rows.append([(f"    … and {len(health.anomalies) - _MAX_ANOMALIES:,} more", "$muted")])
    return rows


def summary(plan: PushData) -> list[list[Part]]:
    """Return what a push would do, in a few lines."""
    if plan.no_changes:
        return [[("✓ ", "$good"), ("The hub has every file as it is here: nothing would change.", "")]]
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
        rows.append([(f"{spaced_size(plan.bytes_total)} to upload", "$muted")])
    made = [
        text
        for text, would in (
            ("the repo is made, private", plan.would_create_repo),
            (f"the branch {printable(plan.branch)} is made", plan.would_create_branch),
        )
        if would
    ]
    if made:
        rows.append([("First ", "$muted"), (", and ".join(made), ""), (".", "$muted")])
    return rows


def changes(plan: PushData, width: int) -> list[list[Part]]:
    """Return every file that a push would change, one a line, in exactly the words of the plan."""
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
