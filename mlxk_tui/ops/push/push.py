"""Push: a folder of the user's becomes a commit of a private repo on the hub.

What would change is found by comparing checksums with the branch's own list of files, so that a plan is
exact. Files are added and replaced; what the hub has beyond them stays, unless `delete` is set. The
commit comes last and is one request: until then nothing of a push can be seen in the repo.
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
from mlxk_tui.ops.core.text import plural, printable, size
from mlxk_tui.ops.hub.responses import TreeEntry
from mlxk_tui.ops.push.files import FolderListing, list_files
from mlxk_tui.ops.push.plan import PlannedFile, PushChanges, PushPlan, compare, planned
from mlxk_tui.ops.push.result import difference, result, words
from mlxk_tui.ops.push.target import (
    Target,
    check_may_write,
    check_target,
    check_token,
    look,
    make_branch,
    make_repo,
)
from mlxk_tui.ops.push.terms import (
    DEFAULT_MESSAGE,
    DISCLAIMER,
    KEPT,
    MAIN,
    XET_OVER,
    PushLimits,
    PushRequest,
    push_enabled,
)
from mlxk_tui.ops.push.upload import MovedError, Upload, Uploaded, upload
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
    "push",
    "push_enabled",
    "review",
]

_NO_OP = "No files have been modified"
"""How huggingface_hub begins to say that nothing changed."""


async def check_only(request: PushRequest, *, hub: Hub) -> PushData:
    """Judge the folder without the network and without a token; `workspace_health` holds the verdict.

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
    return result(
        request, hub.endpoint, local_files=len(listing.files), message=f"Check-only: {verdict}"
    ).model_copy(update={"workspace_health": health})


async def plan_push(request: PushRequest, *, hub: Hub, on_event: OnEvent = ignore_event) -> PushPlan:
    """Compare the folder with the branch; nothing is changed anywhere.

    A missing repo or branch, and a public repo, are facts of the plan and no error here.

    Raises:
        OpError: `validation_error`, `workspace_not_found`, `permission_denied`, `upload_failed` for a file
            that cannot be read, `auth_error`, `access_denied`, `network_error`.
    """
    listing, _ = await _prepare(request, hub)
    target = await look(hub, request)
    # A branch begins as what main is.
    base = target.commit or (MAIN if target.exists else None)
    remote = await hub.files(request.repo_id, base) if base else ()
    changes = await run_in_thread(
        lambda stop: compare(listing, remote, stop, on_event, delete=request.delete, hash_all=False)
    )
    return PushPlan(
        request=request,
        endpoint=hub.endpoint,
        commit=target.commit,
        repo_is_public=target.public,
        would_create_repo=not target.exists,
        would_create_branch=target.commit is None and (target.exists or request.branch != MAIN),
        local_files_count=len(listing.files),
        added=planned(changes.added),
        modified=planned(changes.modified),
        deleted=changes.deleted,
        missing=changes.missing if target.commit else (),
        only_there=changes.only_there,
        bytes_total=sum(file.size for file in changes.changed),
    )


async def review(request: PushRequest, *, hub: Hub, on_event: OnEvent = ignore_event) -> PushData:
    """Return what a push would change (`--dry-run`), refused where the push itself would be.

    A branch that is missing is told of even without `create`, for which the push itself would ask.

    Raises:
        OpError: those of `plan_push`; `repo_not_found` without `create`; `validation_error` for a public
            repo.
    """
    plan = await plan_push(request, hub=hub, on_event=on_event)
    check_target(request, Target(not plan.would_create_repo, plan.repo_is_public, plan.commit))
    return plan.data()


async def push(
    request: PushRequest,
    *,
    hub: Hub,
    limits: PushLimits = PushLimits(),  # noqa: B008 - frozen
    on_event: OnEvent = ignore_event,
    on_log: Callable[[str], None] = lambda line: None,
) -> PushData:
    """Upload what differs and commit it.

    When the task is cancelled the upload stops at once; files that arrived whole are not sent again by
    the next push.

    Args:
        request: what to push where.
        hub: the hub, with a token that may write.
        limits: bounds on waiting.
        on_event: receives progress: the stage `verify` while files are hashed, then `push`.
        on_log: receives what huggingface_hub logs, a line at a time.

    Raises:
        OpError: those of `review`; `upload_failed`, `branch_create_failed`, `push_operation_failed`,
            `dependency_missing`. `data` tells of a repo that was made before it failed.
    """
    running = _Push(request, hub, limits, on_event, on_log)
    try:
        return await running.run()
    except OpError as error:
        if error.data is None and running.made_repo:
            error.data = result(request, hub.endpoint, running.done.logs, made_repo=True)
        raise
    except Exception as error:
        raise OpError(
            ErrorType.PUSH_OPERATION_FAILED,
            f"The push failed unexpectedly ({type(error).__name__}).",
            remedy=Remedy.PUSH_AGAIN,
        ) from error


@dataclass
class _State:
    """The branch, and how the folder differs from it."""

    commit: str
    remote: Sequence[TreeEntry]
    changes: PushChanges


class _Push:
    """One push on its way."""

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
        self.made_repo = False
        self.done = Uploaded()

    async def run(self) -> PushData:
        request, hub = self._request, self._hub
        listing, token = await _prepare(request, hub)
        target = await look(hub, request)
        check_target(request, target)
        if target.exists:
            await check_may_write(hub, request)
        else:
            await make_repo(hub, request)
            self.made_repo = True
            target = await look(hub, request)
            check_target(request, target)  # somebody may have made it at the same time, and public
        commit = target.commit or await self._make_branch()
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
            commit = await self._make_branch()
            if commit != state.commit:
                state = await self._compare(listing, commit)
        return await self._report(listing, state, moved=moved)

    async def _make_branch(self) -> str:
        """Make the branch and return the commit that it is at."""
        request = self._request
        branch = printable(request.branch)
        if not request.create:
            raise OpError(
                ErrorType.UPLOAD_FAILED,
                f"{printable(request.repo_id)} has no branch {branch}.",
                remedy=Remedy.CREATE_BRANCH,
            )
        await make_branch(self._hub, request)
        target = await look(self._hub, request)
        check_target(request, target)
        if target.commit is None:
            raise OpError(
                ErrorType.BRANCH_CREATE_FAILED,
                f"The hub made the branch {branch} and does not know it yet.",
                remedy=Remedy.PUSH_AGAIN,
            )
        return target.commit

    async def _compare(self, listing: FolderListing, commit: str) -> _State:
        remote = await self._hub.files(self._request.repo_id, commit)
        changes = await run_in_thread(
            lambda stop: compare(
                listing, remote, stop, self._on_event, delete=self._request.delete, hash_all=True
            )
        )
        return _State(commit, remote, changes)

    async def _upload(self, listing: FolderListing, state: _State, token: str) -> bool:
        """Upload what differs, or ask the hub about every file when nothing seems to.

        Returns:
            Whether the branch moved away meanwhile, and to where is unknown.
        """
        changes = state.changes
        files = listing.files if changes.none else changes.changed
        large = any(file.size > XET_OVER for file in files)
        job = Upload(
            endpoint=self._hub.endpoint,
            token=token,
            request=self._request,
            parent=state.commit,
            files=files,
            digests=changes.digests,
            deleted=[file.path for file in changes.deleted],
            xet=(self._request.xet or large) and not changes.none,
        )
        silent = ignore_event if changes.none else self._on_event
        try:
            await upload(job, self._limits, self.done, silent, self._on_log)
        except MovedError:
            return True
        return False

    async def _report(self, listing: FolderListing, state: _State, *, moved: bool) -> PushData:
        """Say what came of it, by the list of files that the hub has now."""
        request, hub, done, changes = self._request, self._hub, self.done, state.changes
        if not moved and (done.commit == state.commit or any(_NO_OP in line for line in done.logs)):
            told = next((line for line in done.logs if _NO_OP in line), f"{_NO_OP}.")
            return result(
                request,
                hub.endpoint,
                done.logs,
                local_files=len(listing.files),
                made_repo=self.made_repo,
                no_changes=True,
                message=told,
            )
        remote, known = await self._now(moved=moved)
        if remote is None:
            summary, ignored = changes.summary, 0
        else:
            ignored = self._check(changes, remote, moved=moved)
            summary = difference(state.remote, remote, {file.path for file in changes.changed})
        message = f"{words(summary)} ({size(sum(file.size for file in changes.changed))})"
        if ignored:
            message += f"; the hub's .gitignore leaves out {plural(ignored, 'file')}"
        return result(
            request,
            hub.endpoint,
            done.logs,
            local_files=len(listing.files),
            made_repo=self.made_repo,
            commit=known or done.commit,
            summary=summary,
            message=message,
        )

    async def _now(self, *, moved: bool) -> tuple[Sequence[TreeEntry] | None, str]:
        """Return the files of the new commit, None where the hub does not say, and the commit."""
        try:
            commit = (await look(self._hub, self._request)).commit or "" if moved else self.done.commit
            return await self._hub.files(self._request.repo_id, commit), commit
        except OpError:
            if moved:
                raise
            return None, self.done.commit  # it is committed, whatever else goes wrong

    def _check(self, changes: PushChanges, remote: Sequence[TreeEntry], *, moved: bool) -> int:
        """Compare what the hub has now with what was to come; return how many files it left out.

        Raises:
            OpError: `upload_failed` when it is not that.
        """
        there = {entry.path: entry for entry in remote}
        missing, other = 0, ""
        for file in changes.changed:
            entry = there.get(file.path)
            if entry is None:
                missing += 1
            elif file.path not in KEPT and not changes.digests[file.path].is_of(entry.etag):
                other = file.path
        if moved and (missing or other or any(file.path in there for file in changes.deleted)):
            raise OpError(
                ErrorType.UPLOAD_FAILED,
                f"Somebody else has committed to {printable(self._request.branch)} meanwhile.",
                remedy=Remedy.PUSH_AGAIN,
            )
        if other:
            raise OpError(
                ErrorType.UPLOAD_FAILED,
                f"{printable(other)} changed while it was being pushed, and the commit holds another "
                "state of it.",
                remedy=Remedy.PUSH_AGAIN,
            )
        return missing


async def _prepare(request: PushRequest, hub: Hub) -> tuple[FolderListing, str]:
    """Look at everything that needs no network; return the files and the token."""
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
