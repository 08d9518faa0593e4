"""Pushes a folder as a commit of a private repo on the hub.

Changes are determined by comparing checksums with the branch's file list, so that a plan is exact. Files are
added and replaced; other files on the hub stay, unless `delete` is set. The commit is the last step and
one request: until then the repo is unchanged.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.ops.contract.transfers import PushData
from mlxk_tui.ops.core.background import run_in_thread
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.push.files import FolderListing, list_files
from mlxk_tui.ops.push.plan import PlannedFile, PushChanges, PushPlan, compare_with_commit, to_planned_files
from mlxk_tui.ops.push.request import (
    DEFAULT_MESSAGE,
    DISCLAIMER,
    HUB_MANAGED_FILES,
    MAIN,
    XET_MIN_BYTES,
    PushLimits,
    PushRequest,
    push_enabled,
)
from mlxk_tui.ops.push.result import commit_difference, format_summary, make_push_data
from mlxk_tui.ops.push.target import (
    PushTarget,
    check_target,
    check_token,
    check_write_access,
    create_branch,
    create_repo,
    get_target,
)
from mlxk_tui.ops.push.upload import BranchMovedError, UploadJob, UploadResult, upload
from mlxk_tui.ops.push.workspace import check_workspace

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub

__all__ = [
    "DEFAULT_MESSAGE",
    "DISCLAIMER",
    "PlannedFile",
    "PushLimits",
    "PushPlan",
    "PushRequest",
    "check_only",
    "plan_push",
    "preview_push",
    "push",
    "push_enabled",
]

_NO_CHANGES = "No files have been modified"
"""Start of huggingface_hub's log line when nothing changed."""


async def check_only(request: PushRequest, *, hub: Hub) -> PushData:
    """Check the folder without network and token; `workspace_health` has the result.

    Raises:
        OpError: `validation_error`, `workspace_not_found`, `permission_denied`.
    """
    request.check()
    listing = await run_in_thread(lambda stop: list_files(request.folder, stop))
    health = await check_workspace(request.folder)
    count = len(health.anomalies)
    verdict = ("healthy" if health.healthy else "unhealthy") + (
        f", {plural(count, 'finding')}" if count else ""
    )
    return make_push_data(
        request, hub.endpoint, local_files=len(listing.files), message=f"Check-only: {verdict}"
    ).model_copy(update={"workspace_health": health})


async def plan_push(request: PushRequest, *, hub: Hub, on_event: OnEvent = ignore_event) -> PushPlan:
    """Compare the folder with the branch; nothing is changed.

    A missing repo or branch, or a public repo, is reported in the plan and not an error here.

    Raises:
        OpError: `validation_error`, `workspace_not_found`, `permission_denied`, `upload_failed` for an
            unreadable file, `auth_error`, `access_denied`, `network_error`.
    """
    listing, _ = await _prepare(request, hub)
    target = await get_target(hub, request)
    # A new branch starts at main.
    base = target.commit or (MAIN if target.exists else None)
    remote = await hub.files(request.repo_id, base) if base else ()
    changes = await run_in_thread(
        lambda stop: compare_with_commit(
            listing, remote, stop, on_event, delete=request.delete, hash_all=False
        )
    )
    return PushPlan(
        request=request,
        endpoint=hub.endpoint,
        commit=target.commit,
        repo_is_public=target.public,
        would_create_repo=not target.exists,
        would_create_branch=target.commit is None and (target.exists or request.branch != MAIN),
        local_files_count=len(listing.files),
        added=to_planned_files(changes.added),
        modified=to_planned_files(changes.modified),
        deleted=changes.deleted,
        missing=changes.missing if target.commit else (),
        kept_remote_count=changes.kept_remote_count,
        bytes_total=sum(file.size for file in changes.changed),
    )


async def preview_push(request: PushRequest, *, hub: Hub, on_event: OnEvent = ignore_event) -> PushData:
    """Return what a push would change (`--dry-run`); refused in the same cases as the push itself.

    An exception is a missing branch, which is reported even without `create`.

    Raises:
        OpError: the errors of `plan_push`; `repo_not_found` without `create`; `validation_error` for a public
            repo.
    """
    plan = await plan_push(request, hub=hub, on_event=on_event)
    check_target(request, PushTarget(not plan.would_create_repo, plan.repo_is_public, plan.commit))
    return plan.data()


async def push(
    request: PushRequest,
    *,
    hub: Hub,
    limits: PushLimits = PushLimits(),  # noqa: B008 - frozen
    on_event: OnEvent = ignore_event,
    on_log: Callable[[str], None] = lambda line: None,
) -> PushData:
    """Upload the changed files and commit them.

    Cancelling the task stops the upload immediately; completely uploaded files are not sent again by the next
    push.

    Args:
        request: the folder, repo and branch.
        hub: the hub, with a token that has write access.
        limits: time-outs.
        on_event: receives progress: the stage `verify` while files are hashed, then `push`.
        on_log: receives the log lines of huggingface_hub.

    Raises:
        OpError: the errors of `preview_push`; `upload_failed`, `branch_create_failed`,
            `push_operation_failed`, `dependency_missing`. `data` reports a repo that was created before the
            failure.
    """
    running = _PushRun(request, hub, limits, on_event, on_log)
    try:
        return await running.run()
    except OpError as error:
        if error.data is None and running.created_repo:
            error.data = make_push_data(request, hub.endpoint, running.done.logs, created_repo=True)
        raise
    except Exception as error:
        raise OpError(
            ErrorType.PUSH_OPERATION_FAILED,
            f"The push failed unexpectedly ({type(error).__name__}).",
            remedy=Remedy.PUSH_AGAIN,
        ) from error


@dataclass
class _Comparison:
    """The files of a commit, and how the folder differs from it."""

    commit: str
    remote: Sequence[TreeEntry]
    changes: PushChanges


class _PushRun:
    """A running push: creates repo and branch if needed, uploads, and verifies the result."""

    def __init__(
        self,
        request: PushRequest,
        hub: Hub,
        limits: PushLimits,
        on_event: OnEvent,
        on_log: Callable[[str], None],
    ) -> None:
        self._request = request
        self._hub = hub
        self._limits = limits
        self._on_event = on_event
        self._on_log = on_log
        self.created_repo = False
        self.done = UploadResult()

    async def run(self) -> PushData:
        request, hub = self._request, self._hub
        listing, token = await _prepare(request, hub)
        target = await get_target(hub, request)
        check_target(request, target)
        if target.exists:
            await check_write_access(hub, request)
        else:
            await create_repo(hub, request)
            self.created_repo = True
            target = await get_target(hub, request)
            check_target(request, target)  # another process may have created it as a public repo meanwhile
        commit = target.commit or await self._create_branch()
        state = await self._compare(listing, commit)
        for again in (request.create, False):
            try:
                moved = await self._upload(listing, state, token)
                break
            except OpError as error:
                if error.type is not ErrorType.REVISION_NOT_FOUND:
                    raise
                if not again:
                    raise error.as_type(ErrorType.UPLOAD_FAILED) from None
            commit = await self._create_branch()
            if commit != state.commit:
                state = await self._compare(listing, commit)
        return await self._report(listing, state, moved=moved)

    async def _create_branch(self) -> str:
        """Create the branch and return its commit."""
        request = self._request
        branch = printable(request.branch)
        if not request.create:
            raise OpError(
                ErrorType.UPLOAD_FAILED,
                f"{printable(request.repo_id)} has no branch {branch}.",
                remedy=Remedy.CREATE_BRANCH,
            )
        await create_branch(self._hub, request)
        target = await get_target(self._hub, request)
        check_target(request, target)
        if target.commit is None:
            raise OpError(
                ErrorType.BRANCH_CREATE_FAILED,
                f"The hub created the branch {branch}, but does not list it yet.",
                remedy=Remedy.PUSH_AGAIN,
            )
        return target.commit

    async def _compare(self, listing: FolderListing, commit: str) -> _Comparison:
        remote = await self._hub.files(self._request.repo_id, commit)
        changes = await run_in_thread(
            lambda stop: compare_with_commit(
                listing, remote, stop, self._on_event, delete=self._request.delete, hash_all=True
            )
        )
        return _Comparison(commit, remote, changes)

    async def _upload(self, listing: FolderListing, state: _Comparison, token: str) -> bool:
        """Upload the changed files, or submit all files when none seems changed.

        Returns:
            Whether the branch moved meanwhile to an unknown commit.
        """
        changes = state.changes
        files = listing.files if changes.is_empty else changes.changed
        large = any(file.size > XET_MIN_BYTES for file in files)
        job = UploadJob(
            endpoint=self._hub.endpoint,
            token=token,
            request=self._request,
            parent=state.commit,
            files=files,
            digests=changes.digests,
            deleted=[file.path for file in changes.deleted],
            xet=(self._request.xet or large) and not changes.is_empty,
        )
        silent = ignore_event if changes.is_empty else self._on_event
        try:
            await upload(job, self._limits, self.done, silent, self._on_log)
        except BranchMovedError:
            return True
        return False

    async def _report(self, listing: FolderListing, state: _Comparison, *, moved: bool) -> PushData:
        """Return the result, determined from the hub's current file list."""
        request, hub, done, changes = self._request, self._hub, self.done, state.changes
        if not moved and (done.commit == state.commit or any(_NO_CHANGES in line for line in done.logs)):
            no_change_line = next((line for line in done.logs if _NO_CHANGES in line), f"{_NO_CHANGES}.")
            return make_push_data(
                request,
                hub.endpoint,
                done.logs,
                local_files=len(listing.files),
                created_repo=self.created_repo,
                no_changes=True,
                message=no_change_line,
            )
        remote, commit = await self._read_commit_files(moved=moved)
        if remote is None:
            summary, ignored = changes.summary, 0
        else:
            ignored = self._verify_commit(changes, remote, moved=moved)
            summary = commit_difference(state.remote, remote, {file.path for file in changes.changed})
        message = f"{format_summary(summary)} ({format_size(sum(file.size for file in changes.changed))})"
        if ignored:
            message += f"; the repo's .gitignore excludes {plural(ignored, 'file')}"
        return make_push_data(
            request,
            hub.endpoint,
            done.logs,
            local_files=len(listing.files),
            created_repo=self.created_repo,
            commit=commit or done.commit,
            summary=summary,
            message=message,
        )

    async def _read_commit_files(self, *, moved: bool) -> tuple[Sequence[TreeEntry] | None, str]:
        """Return the files of the new commit, None if the hub does not list them, and the commit."""
        try:
            commit = (await get_target(self._hub, self._request)).commit or "" if moved else self.done.commit
            return await self._hub.files(self._request.repo_id, commit), commit
        except OpError:
            if moved:
                raise
            return None, self.done.commit  # the commit succeeded, even if it cannot be listed

    def _verify_commit(self, changes: PushChanges, remote: Sequence[TreeEntry], *, moved: bool) -> int:
        """Verify that the new commit contains the pushed files; return how many the hub excluded.

        Raises:
            OpError: `upload_failed` if the commit differs from the plan.
        """
        remote_files = {entry.path: entry for entry in remote}
        missing, changed_path = 0, ""
        for file in changes.changed:
            entry = remote_files.get(file.path)
            if entry is None:
                missing += 1
            elif file.path not in HUB_MANAGED_FILES and not changes.digests[file.path].matches(entry.etag):
                changed_path = file.path
        if moved and (missing or changed_path or any(file.path in remote_files for file in changes.deleted)):
            raise OpError(
                ErrorType.UPLOAD_FAILED,
                f"Another commit was made to {printable(self._request.branch)} meanwhile.",
                remedy=Remedy.PUSH_AGAIN,
            )
        if changed_path:
            raise OpError(
                ErrorType.UPLOAD_FAILED,
                f"{printable(changed_path)} changed during the push, and the commit contains another "
                "version of it.",
                remedy=Remedy.PUSH_AGAIN,
            )
        return missing


async def _prepare(request: PushRequest, hub: Hub) -> tuple[FolderListing, str]:
    """Make all checks that need no network; return the files and the token."""
    request.check()
    if importlib.util.find_spec("huggingface_hub") is None:
        raise OpError(
            ErrorType.DEPENDENCY_MISSING,
            "huggingface_hub is not installed.",
            remedy=Remedy.INSTALL_PACKAGE,
            facts=ErrorFacts(package="huggingface_hub"),
        )
    listing = await run_in_thread(lambda stop: list_files(request.folder, stop))
    if listing.problems:
        raise listing.problems[0]
    return listing, await check_token(hub)
