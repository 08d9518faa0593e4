"""Creates the contract's result of a push."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlxk_tui.ops.contract.transfers import ChangeSummary, PushData
from mlxk_tui.ops.hub.errors import display_endpoint
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.push.request import DISCLAIMER, HUB_MANAGED_FILES, PushRequest

NO_CHANGES = ChangeSummary(added=0, modified=0, deleted=0)


def repo_url(endpoint: str, repo: str) -> str:
    """Return the address of a repo's web page."""
    return f"{display_endpoint(endpoint)}/{repo}"


def make_push_data(
    request: PushRequest,
    endpoint: str,
    logs: Sequence[str] = (),
    *,
    local_files: int | None = None,
    created_repo: bool = False,
    no_changes: bool = False,
    commit: str = "",
    summary: ChangeSummary = NO_CHANGES,
    message: str | None = None,
) -> PushData:
    """Return the data of a push; the defaults are those of a push without a commit."""
    url = repo_url(endpoint, request.repo_id)
    return PushData(
        repo_id=request.repo_id,
        branch=request.branch,
        commit_sha=commit or None,
        commit_url=f"{url}/commit/{commit}" if commit else None,
        repo_url=url,
        uploaded_files_count=summary.added + summary.modified + summary.deleted if commit else 0,
        local_files_count=local_files,
        no_changes=no_changes,
        created_repo=created_repo,
        change_summary=summary,
        message=message,
        hf_logs=list(logs),
        disclaimer=DISCLAIMER,
    )


def format_summary(summary: ChangeSummary) -> str:
    """Format a summary as `+1 ~2 -0`."""
    return f"+{summary.added} ~{summary.modified} -{summary.deleted}"


def commit_difference(
    before: Sequence[TreeEntry], after: Sequence[TreeEntry], pushed: Collection[str]
) -> ChangeSummary:
    """Return how two commits differ, without files that only the hub itself changed."""
    old = {
        entry.path: entry.blob_id
        for entry in before
        if entry.path in pushed or entry.path not in HUB_MANAGED_FILES
    }
    new = {
        entry.path: entry.blob_id
        for entry in after
        if entry.path in pushed or entry.path not in HUB_MANAGED_FILES
    }
    return ChangeSummary(
        added=len(new.keys() - old.keys()),
        modified=sum(new[path] != old[path] for path in new.keys() & old.keys()),
        deleted=len(old.keys() - new.keys()),
    )
