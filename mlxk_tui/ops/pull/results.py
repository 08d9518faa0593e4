"""Builds the data of `pull`: its outcome, in numbers and in a sentence."""

from __future__ import annotations

from collections.abc import Collection

from mlxk_tui.ops.cache.names import Spec, parse_spec
from mlxk_tui.ops.cache.repo import Snapshot
from mlxk_tui.ops.contract.transfers import DownloadStatus, PullData
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.download.options import DownloadResult
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.pull.plan import PullPlan


def failed_pull(
    spec: str, plan: PullPlan | None, status: DownloadStatus, message: str, *, downloaded: int = 0
) -> PullData | None:
    """Return the data of a pull that did not succeed: `failed`, `access_denied` or `cancelled`.

    Args:
        spec: the requested spec.
        plan: the plan, or None if the pull failed before it was made.
        status: the outcome.
        message: the cause, for people.
        downloaded: bytes received.
    """
    if plan is not None:
        return _data(plan, status, message, downloaded=downloaded)
    try:
        parsed = parse_spec(spec)
    except OpError:
        return None
    return data_without_plan(parsed, status, message)


def blob_bytes(entries: Collection[TreeEntry]) -> int:
    """Return the bytes of files, each blob counted once."""
    return sum({entry.etag: entry.size for entry in entries}.values())


def pulled(plan: PullPlan, done: DownloadResult) -> PullData:
    """Return the data of a successful transfer."""
    short = plan.commit[:12]
    broken = len(plan.local.broken)
    existed = plan.local.repo is not None and plan.commit in plan.local.repo.snapshots
    if not plan.missing:
        message = f"{plan.repo} was already cached; '{printable(plan.ref)}' now names {short}."
    elif broken and not plan.absent:
        message = f"Repaired {plan.repo} at {short}: {plural(broken, 'file')} downloaded again."
    elif existed:
        message = f"Completed {plan.repo} at {short}: {plural(len(plan.missing), 'file')} added or repaired."
    elif plan.local.repo is not None and plan.ref in plan.local.repo.refs:
        changed = sum(entry.path not in plan.local.linkable for entry in plan.missing)
        message = f"Updated {plan.repo} to {short}: {plural(changed, 'changed file')} downloaded."
    elif plan.is_partial:
        message = (
            f"Pulled {len(plan.entries)} of {plural(len(plan.tree), 'file')} of {plan.repo} at {short}: "
            f"{format_size(plan.bytes_total)}."
        )
    else:
        message = (
            f"Pulled {plan.repo} at {short}: {plural(len(plan.entries), 'file')}, "
            f"{format_size(plan.bytes_total)}."
        )
    present = [entry for entry in plan.entries if entry.path in plan.local.present]
    return _data(
        plan,
        DownloadStatus.SUCCESS,
        message,
        downloaded=done.bytes_downloaded,
        reused=done.bytes_reused + blob_bytes(present),
    )


def already_complete(plan: PullPlan) -> PullData:
    """Return the data of a pull that had nothing to do."""
    kind = "already has these files" if plan.is_partial else "is already complete"
    message = f"{plan.repo} {kind} at {plan.commit[:12]}."
    if plan.local.upstream_problems:
        message += f" The hub's own file has a problem: {plan.local.upstream_problems[0].message}"
    return _data(plan, DownloadStatus.ALREADY_EXISTS, message, reused=plan.bytes_total)


def planned(plan: PullPlan) -> PullData:
    """Return the data of a dry run."""
    fetch = plan.bytes_to_fetch
    if plan.missing:
        message = (
            f"Would download {plural(len(plan.missing), 'file')} of {plan.repo} at {plan.commit[:12]}: "
            f"{format_size(fetch)} of {format_size(plan.bytes_total)}."
        )
    else:
        message = f"{plan.repo} is already complete at {plan.commit[:12]}; nothing to download."
    if plan.lacks_space:
        message += f" {plan.lacks_space.message}"
    return _data(plan, DownloadStatus.PLANNED, message, downloaded=fetch, reused=plan.bytes_total - fetch)


def _data(
    plan: PullPlan, status: DownloadStatus, message: str, *, downloaded: int = 0, reused: int = 0
) -> PullData:
    return PullData(
        model=plan.spec.name,
        download_status=status,
        message=message,
        expanded_name=plan.expanded_name,
        revision=plan.spec.revision,
        commit_hash=plan.commit,
        files_count=len(plan.entries),
        partial=plan.is_partial,
        bytes_total=plan.bytes_total,
        bytes_downloaded=downloaded,
        bytes_reused=reused,
        disk_free_bytes=plan.disk_free,
        memory_bytes=plan.memory_bytes,
        memory_fit=plan.memory_fit,
        license=printable(plan.license) if plan.license else None,
        gated=plan.gated,
        warnings=list(plan.warnings),
    )


def data_without_plan(
    spec: Spec,
    status: DownloadStatus,
    message: str,
    *,
    name: str | None = None,
    snapshot: Snapshot | None = None,
    warnings: Collection[str] = (),
) -> PullData:
    """Return the data of a pull without a plan; `snapshot` is the cached one, if there is one."""
    total = snapshot.size_bytes if snapshot else 0
    return PullData(
        model=spec.name,
        download_status=status,
        message=message,
        expanded_name=name if name != spec.name else None,
        revision=spec.revision,
        commit_hash=snapshot.hash if snapshot else None,
        files_count=len(snapshot.files) if snapshot else 0,
        partial=False,
        bytes_total=total,
        bytes_downloaded=0,
        bytes_reused=total,
        disk_free_bytes=None,
        memory_bytes=None,
        memory_fit=None,
        license=None,
        gated=None,
        warnings=list(warnings),
    )
