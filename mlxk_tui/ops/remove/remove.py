"""Removing a model, or one revision of it: what would go, then doing it.

A whole model goes in this order, so that a kill at any point leaves a model that shows as broken
(there is no snapshot) and that the same command finishes (the folder is there until the very end):

1. `snapshots` is renamed out of sight in one step;
2. each link into the shared store goes together with its payload, where nobody else refers to it; what
   a kill leaves of these is found again through the payloads' own lists;
3. everything else in the folder, then the lock files, then the folder itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.cross_links import find_cross_links
from mlxk_tui.ops.cache.deletion import (
    Folder,
    check_deletion_allowed,
    check_writable,
    deletion_error,
    freed_by_removal,
    open_cache,
)
from mlxk_tui.ops.cache.locks import delete_locks, delete_stale_locks, held_locks, held_locks_in
from mlxk_tui.ops.cache.names import dir_to_name
from mlxk_tui.ops.cache.repo import Repo
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.contract.results import RmData
from mlxk_tui.ops.core.background import Meter, run_in_thread
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import plural, printable, size
from mlxk_tui.ops.remove.revisions import (
    EMPTY_FOLDERS,
    Payloads,
    delete_if_empty,
    delete_leftovers,
    delete_revision,
    plan_revision,
)

_ATTEMPTS = 3


@dataclass(frozen=True)
class RemovePlan:
    """What `remove` would take away; it is worked out anew when it is done."""

    ref: RepoRef
    exact: bool
    """True when the spec held the full name, letter for letter."""
    revision: str | None
    """The commit that goes; None for the whole model."""
    revisions: int
    """Cached revisions that go."""
    files: int
    """Files of these revisions."""
    freed_bytes: int
    """Bytes that this frees on disk; shared payload only where nothing else uses it."""
    held_locks: tuple[str, ...]
    """Locks that another process holds, relative to the cache."""


async def plan_remove(cache: Cache, spec: str) -> RemovePlan:
    """Return what `rm NAME[@REV]` would take away; nothing is touched.

    Raises:
        OpError: `validation_error`, `model_not_found`, `ambiguous_match`, `revision_not_found`,
            `cache_not_found`, `permission_denied` (also for a repo that is a link).
    """

    def plan() -> RemovePlan:
        found = cache.find(spec)
        return _plan(cache, found.ref, found.spec.revision, exact=found.exact)

    return await run_in_thread(lambda stop: plan())


async def plan_remove_ref(cache: Cache, ref: RepoRef, revision: str | None = None) -> RemovePlan:
    """Return what removing a repo (or a revision of it) that was picked from a list would take away.

    Raises:
        OpError: `model_not_found`, `revision_not_found`, `ambiguous_match`, `permission_denied`.
    """
    return await run_in_thread(lambda stop: _plan(cache, ref, revision, exact=True))


async def remove(
    cache: Cache, plan: RemovePlan, *, force: bool = False, on_event: OnEvent = ignore_event
) -> RmData:
    """Delete what a plan says; cancelling stops between two files and leaves what a second call finishes.

    Args:
        cache: the cache that the plan was made for.
        plan: from `plan_remove`.
        force: delete also while another process holds locks on the model.
        on_event: receives progress, from a thread.

    Raises:
        OpError: `locks_present`, `permission_denied`, and `model_not_found` or `revision_not_found`
            when it vanished meanwhile.
    """
    return await run_in_thread(
        lambda stop: _remove(
            cache, plan, force=force, meter=Meter("remove", stop, on_event, bytes_total=plan.freed_bytes)
        )
    )


def _plan(cache: Cache, ref: RepoRef, wanted: str | None, *, exact: bool) -> RemovePlan:
    repo = _read(cache, ref)
    held = held_locks(cache, ref)
    payloads = Payloads.of(cache)
    abandoned = sum(payloads.abandoned(ref.folder_name).values())
    if wanted is not None:
        _refuse_inner_links(ref)
        plan = plan_revision(
            repo, _commit(repo, wanted), payloads, foreign=find_cross_links(cache).get(ref.folder_name, {})
        )
        count = int(plan.commit in repo.snapshots)
        freed = plan.freed_bytes + abandoned
        return RemovePlan(ref, exact, plan.commit, count, plan.files, freed, held)
    freed = freed_by_removal(ref.path) + abandoned
    if payloads.store.exists() and not os.path.islink(ref.path / "blobs"):
        links = [blob.path for blob in repo.blobs.values() if payloads.store.payload_for(blob.path)]
        freed += sum(payloads.pick(path) for path in links)
    files = sum(len(snapshot.files) for snapshot in repo.snapshots.values())
    return RemovePlan(ref, exact, None, len(repo.snapshots), files, freed, held)


def _read(cache: Cache, ref: RepoRef) -> Repo:
    """Read a repo that may be deleted: a real folder directly inside the cache."""
    if ref.path.parent != cache.root or dir_to_name(ref.folder_name) is None:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{printable(ref.folder)} is not a model of this cache; nothing was deleted.",
        )
    repo = read_repo(cache, ref)
    if repo.is_link:
        raise _is_link(ref)
    return repo


def _is_link(ref: RepoRef) -> OpError:
    return OpError(
        ErrorType.PERMISSION_DENIED,
        f"{ref.name} is a link in the cache, and links are not followed; nothing was deleted.",
        remedy=Remedy.REMOVE_LINK,
        facts=ErrorFacts(path=printable(ref.folder)),
    )


def _refuse_inner_links(ref: RepoRef) -> None:
    for inner in EMPTY_FOLDERS:
        if os.path.islink(ref.path / inner):
            raise OpError(
                ErrorType.PERMISSION_DENIED,
                f"'{inner}' of {ref.name} is a link, and links are not followed; nothing was deleted.",
                remedy=Remedy.REMOVE_MODEL_FIRST,
            )


def _commit(repo: Repo, wanted: str) -> str:
    """Return the commit that a ref name or commit prefix stands for, also of a half-removed revision."""
    try:
        snapshot = repo.find_snapshot(wanted)
    except OpError as error:
        if error.type is not ErrorType.REVISION_NOT_FOUND:
            raise
        missing = {commit for commit in repo.refs.values() if commit not in repo.snapshots}
        if wanted in repo.refs:
            return repo.refs[wanted]
        hits = [commit for commit in missing if len(wanted) >= 3 and commit.startswith(wanted.lower())]
        if len(hits) == 1:
            return hits[0]
        raise
    return snapshot.name if snapshot else wanted


def _remove(cache: Cache, plan: RemovePlan, *, force: bool, meter: Meter) -> RmData:
    repo = _read(cache, plan.ref)
    name = plan.ref.folder_name
    check_deletion_allowed(cache.root)
    with open_cache(cache.root) as root, root.subfolder(name) as folder:
        if folder is None:
            info = root.lstat(name)
            raise _is_link(plan.ref) if info and stat.S_ISLNK(info.st_mode) else _vanished(plan.ref)
        held = held_locks_in(root, name)
        if held and not force:
            raise _locked(plan, held)
        foreign = find_cross_links(cache).get(name, {})
        if plan.revision is None and foreign and not force:
            raise _used_elsewhere(plan, foreign)
        check_writable(plan.ref.path, cache.root)
        try:
            if plan.revision is None:
                freed, locks = _delete_model(root, folder, name, Payloads.of(cache), meter)
            else:
                freed, locks = _delete_revision(
                    root, folder, repo, plan.revision, Payloads.of(cache), foreign, meter
                )
        except OSError as error:
            inner = error.filename if isinstance(error.filename, str) else ""
            raise deletion_error(error, os.path.join(folder.path, inner)) from None
    meter.finish()
    cleaned = f", {plural(locks, 'lock file')} cleaned" if locks else ""
    return RmData(
        model=plan.ref.name,
        revision=plan.revision,
        action="deleted",
        message=f"{size(freed)} freed{cleaned}.",
        freed_bytes=freed,
        lock_files_cleaned=locks,
        matches=[],
        lock_files=[],
    )


def _delete_model(
    root: Folder, folder: Folder, name: str, payloads: Payloads, meter: Meter
) -> tuple[int, int]:
    """Delete a repo; return the bytes freed and the lock files cleaned."""
    folder.set_aside("snapshots", folder)
    freed = 0
    if payloads.store.exists():
        with folder.subfolder("blobs") as blobs:
            shared = blobs.names() if blobs is not None else []
            for blob in shared:
                if blobs is not None and payloads.store.payload_for(os.path.join(blobs.path, blob)):
                    gone = payloads.delete(blobs, blob)
                    freed += gone
                    meter.add(printable(blob), gone, files=1)
    freed += sum(payloads.store.release(payload) for payload in payloads.abandoned(name))
    freed += folder.delete_contents(meter)
    locks = delete_locks(root, name, meter)
    for _ in range(_ATTEMPTS):
        if root.rmdir(name):
            return freed, locks
        freed += folder.delete_contents(meter)
    raise OpError(
        ErrorType.LOCKS_PRESENT,
        f"Another program keeps writing into {printable(folder.path)} while it is deleted.",
        remedy=Remedy.STOP_OTHER_PROGRAM,
    )


def _delete_revision(
    root: Folder,
    folder: Folder,
    repo: Repo,
    commit: str,
    payloads: Payloads,
    foreign: Mapping[str, Collection[str]],
    meter: Meter,
) -> tuple[int, int]:
    """Delete a revision; return the bytes freed and the lock files cleaned."""
    _refuse_inner_links(repo.ref)
    if commit not in repo.snapshots and commit not in repo.refs.values():
        raise OpError(
            ErrorType.REVISION_NOT_FOUND,
            f"Revision {printable(commit[:12])} of {repo.ref.name} was removed meanwhile.",
            available_hashes=list(repo.snapshots),
        )
    plan = plan_revision(repo, commit, payloads, foreign=foreign)
    name = repo.ref.folder_name
    # What an earlier run left that was killed comes first: it may be all that is still to be done.
    freed = sum(payloads.store.release(payload) for payload in payloads.abandoned(name))
    freed += delete_leftovers(folder, meter)
    freed += delete_revision(folder, plan, payloads, meter)
    locks = delete_stale_locks(root, name, plan.blobs)
    if set(repo.snapshots) <= {commit} and delete_if_empty(root, folder, name):
        locks += delete_locks(root, name, meter)
    return freed, locks


def _vanished(ref: RepoRef) -> OpError:
    return OpError(
        ErrorType.MODEL_NOT_FOUND, f"{ref.name} is no longer in the cache; somebody else removed it."
    )


def _used_elsewhere(plan: RemovePlan, foreign: Mapping[str, Collection[str]]) -> OpError:
    users = sorted({user for names in foreign.values() for user in names})
    message = (
        f"Files of {plan.ref.name} are linked from {', '.join(users[:3])}{', …' if len(users) > 3 else ''}, "
        "which would break; nothing was deleted."
    )
    data = RmData(
        model=plan.ref.name,
        revision=None,
        action="requires_confirmation",
        message=message,
        freed_bytes=plan.freed_bytes,
        lock_files_cleaned=0,
        matches=users,
        lock_files=[],
    )
    return OpError(
        ErrorType.CONFIRMATION_REQUIRED,
        message,
        remedy=Remedy.REMOVE_OTHERS_OR_FORCE,
        matches=users,
        data=data,
    )


def _locked(plan: RemovePlan, held: tuple[str, ...]) -> OpError:
    shown = [printable(lock) for lock in held]
    message = (
        f"Another process is using {plan.ref.name} ({plural(len(held), 'lock')} held, such as {shown[0]}); "
        "nothing was deleted."
    )
    data = RmData(
        model=plan.ref.name,
        revision=plan.revision,
        action="requires_confirmation",
        message=message,
        freed_bytes=plan.freed_bytes,
        lock_files_cleaned=0,
        matches=[],
        lock_files=shown,
    )
    return OpError(ErrorType.LOCKS_PRESENT, message, remedy=Remedy.WAIT_OR_FORCE, data=data)
