"""Human-readable output of `push`."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from mlxk_tui.ops.contract.results import WorkspaceHealth
from mlxk_tui.ops.contract.transfers import ChangeSummary, PushData
from mlxk_tui.ops.core.text import format_size, plural, printable, unmentioned_path
from mlxk_tui_headless.request import View


def push_lines(data: PushData, view: View) -> Iterator[RenderableType]:
    """Yield the result or plan of a push in one line, then its findings or files."""
    start = f"push (experimental): {data.repo_id}@{data.branch} — "
    if data.workspace_health is not None:
        yield Text(printable(start + _verdict(data.workspace_health)))
        yield from _anomalies(data.workspace_health)
    elif data.dry_run:
        changes = "no changes" if data.no_changes else _counts(data.change_summary)
        yield Text(printable(f"{start}dry-run: {changes}"))
        if view.verbose:
            yield from _files(data)
    else:
        yield Text(printable(start + _outcome(data, view)))


def push_notes(data: PushData) -> list[str]:
    """Return the notes for stderr: side effects of a plan."""
    notes = []
    if data.would_create_repo:
        notes.append("The private repo would be created.")
    elif data.would_create_branch:
        notes.append(f"The branch {data.branch} does not exist yet; --create creates it.")
    only_remote = len(data.deleted_files or ()) - data.change_summary.deleted
    if only_remote > 0:
        notes.append(
            f"{plural(only_remote, 'file')} only on the branch would be kept; use --delete to delete."
        )
    if data.bytes_total:
        notes.append(f"{format_size(data.bytes_total)} would be uploaded.")
    return notes


def _outcome(data: PushData, view: View) -> str:
    created = ", repo created" if data.created_repo else ""
    if data.commit_sha is None:
        return f"no changes{created}"
    text = f"commit {data.commit_sha[:7]} ({_counts(data.change_summary)}){created}"
    return f"{text} {data.commit_url}" if view.verbose and data.commit_url else text


def _counts(summary: ChangeSummary) -> str:
    return f"+{summary.added} ~{summary.modified} -{summary.deleted}"


def _verdict(health: WorkspaceHealth) -> str:
    state = "healthy" if health.healthy else "unhealthy"
    return f"check-only: {state} ({plural(health.files_count, 'file')}, {format_size(health.total_bytes)})"


def _anomalies(health: WorkspaceHealth) -> Iterator[RenderableType]:
    for anomaly in health.anomalies:
        path = unmentioned_path(anomaly.message, anomaly.path)
        line = Text("  ").append(
            f"{anomaly.severity:<6}", style="red" if anomaly.severity == "error" else "yellow"
        )
        yield line.append(printable(f"{path}: {anomaly.message}" if path else anomaly.message))


def _files(data: PushData) -> Iterator[RenderableType]:
    deleted = data.deleted_files if data.change_summary.deleted else None
    groups = (("+", data.added_files), ("~", data.modified_files), ("-", deleted))
    for sign, paths in groups:
        for path in paths or ():
            yield Text(printable(f"  {sign} {path}"))
