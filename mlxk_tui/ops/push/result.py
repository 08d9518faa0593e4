"""What a push answers with, in the words of the contract."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlxk_tui.ops.contract.transfers import ChangeSummary, PushData
from mlxk_tui.ops.hub.errors import display_endpoint
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.push.terms import DISCLAIMER, KEPT, PushRequest

NOTHING = ChangeSummary(added=0, modified=0, deleted=0)


def repo_url(endpoint: str, repo: str) -> str:
    """Return where people look at a repo."""
    return f"{display_endpoint(endpoint)}/{repo}"


def result(
    request: PushRequest,
    endpoint: str,
    logs: Sequence[str] = (),
    *,
    local_files: int | None = None,
    made_repo: bool = False,
    no_changes: bool = False,
    commit: str = "",
    summary: ChangeSummary = NOTHING,
    message: str | None = None,
) -> PushData:
    """Return a result; what is left out is what it is when nothing was committed."""
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
        created_repo=made_repo,
        change_summary=summary,
        message=message,
        hf_logs=list(logs),
        disclaimer=DISCLAIMER,
    )


def words(summary: ChangeSummary) -> str:
    """Return a summary as `+1 ~2 -0`."""
    return f"+{summary.added} ~{summary.modified} -{summary.deleted}"


def difference(
    before: Sequence[TreeEntry], after: Sequence[TreeEntry], sent: Collection[str]
) -> ChangeSummary:
    """Return by how many files two commits differ, without what the hub itself wrote beside what was sent."""
    old = {entry.path: entry.blob_id for entry in before if entry.path in sent or entry.path not in KEPT}
    new = {entry.path: entry.blob_id for entry in after if entry.path in sent or entry.path not in KEPT}
    return ChangeSummary(
        added=len(new.keys() - old.keys()),
        modified=sum(new[path] != old[path] for path in new.keys() & old.keys()),
        deleted=len(old.keys() - new.keys()),
    )
