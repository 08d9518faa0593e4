"""Removes a model, or one revision of it: plans the deletion, then carries it out.

Because of the order of the deletion, a kill at any point leaves a model that shows as broken (without a
snapshot), and the same command finishes (the folder exists until the end):

1. `snapshots` is renamed to a hidden name atomically;
2. each link into the shared store is deleted together with its payload, if nothing else refers to it;
   after a kill the payloads' own lists lead to the remaining ones;
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
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.remove.revisions import (
    REPO_FOLDERS,
    PayloadTracker,
    delete_if_empty,
    delete_leftovers,
    delete_revision,
    plan_revision,
)

_ATTEMPTS = 3


@dataclass(frozen=True)
class RemovePlan:
    """What `remove` would delete; determined again when it is carried out."""

    ref: RepoRef
    exact: bool
    """True if the spec contained the full name with the same case."""
    revision: str | None
    """The commit to remove; None for the whole model."""
    revisions: int
    """Number of cached revisions to remove."""
    files: int
    """Number of files in these revisions."""
    freed_bytes: int
    """Bytes freed on disk; shared payloads count only if nothing else uses them."""
    held_locks: tuple[str, ...]
    """Locks held by other processes, relative to the cache."""


async def plan_remove(cache: Cache, spec: str) -> RemovePlan:
    """Return what `rm NAME[@REV]` would delete; nothing is changed.

    Raises:
        OpError: `validation_error`, `model_not_found`, `ambiguous_match`, `revision_not_found`,
            `cache_not_found`, `permission_denied` (also for a repo that is a link).
    """

    def plan() -> RemovePlan:
        found = cache.find(spec)
        return _plan(cache, found.ref, found.spec.revision, exact=found.exact)

    return await run_in_thread(lambda stop: plan())


async def plan_remove_ref(cache: Cache, ref: RepoRef, revision: str | None = None) -> RemovePlan:
    """Return what removing a repo from a list, or a revision of it, would delete.

    Raises:
        OpError: `model_not_found`, `revision_not_found`, `ambiguous_match`, `permission_denied`.
    """
    return await run_in_thread(lambda stop: _plan(cache, ref, revision, exact=True))


async def remove(
    cache: Cache, plan: RemovePlan, *, force: bool = False, on_event: OnEvent = ignore_event
) -> RmData:
    """Carry out a plan. A cancellation takes effect between two files; a second call finishes.

    Args:
        cache: the cache of the plan.
        plan: a plan from `plan_remove` or `plan_remove_ref`.
        force: delete even while another process holds locks, or other repos link to the model.
        on_event: receives progress, in a thread.

    Raises:
        OpError: `locks_present`, `confirmation_required`, `permission_denied`, and `model_not_found` or
            `revision_not_found` if it was removed meanwhile.
    """
    return await run_in_thread(
        lambda stop: _remove(
            cache, plan, force=force, meter=Meter("remove", stop, on_event, bytes_total=plan.freed_bytes)
        )
    )


def _plan(cache: Cache, ref: RepoRef, revision: str | None, *, exact: bool) -> RemovePlan:
    repo = _read_removable(cache, ref)
    held = held_locks(cache, ref)
    payloads = PayloadTracker.for_cache(cache)
    leftover_payloads = sum(payloads.leftover_payloads(ref.folder_name).values())
    if revision is not None:
        _refuse_inner_links(ref)
        plan = plan_revision(
            repo,
            _commit(repo, revision),
            payloads,
            cross_links=find_cross_links(cache).get(ref.folder_name, {}),
        )
        count = int(plan.commit in repo.snapshots)
        freed = plan.freed_bytes + leftover_payloads
        return RemovePlan(ref, exact, plan.commit, count, plan.files, freed, held)
    freed = freed_by_removal(ref.path) + leftover_payloads
    if payloads.store.exists() and not os.path.islink(ref.path / "blobs"):
        links = [blob.path for blob in repo.blobs.values() if payloads.store.payload_for(blob.path)]
        freed += sum(payloads.add_removal(path) for path in links)
    files = sum(len(snapshot.files) for snapshot in repo.snapshots.values())
    return RemovePlan(ref, exact, None, len(repo.snapshots), files, freed, held)


def _read_removable(cache: Cache, ref: RepoRef) -> Repo:
    """Read a repo that may be deleted: a real folder directly inside the cache."""
    if ref.path.parent != cache.root or dir_to_name(ref.folder_name) is None:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{printable(ref.folder)} is not a model of this cache; nothing was deleted.",
        )
    repo = read_repo(cache, ref)
    if repo.is_link:
        raise _link_error(ref)
    return repo


def _link_error(ref: RepoRef) -> OpError:
    return OpError(
        ErrorType.PERMISSION_DENIED,
        f"{ref.name} is a link in the cache, and links are not followed; nothing was deleted.",
        remedy=Remedy.REMOVE_LINK,
        facts=ErrorFacts(path=printable(ref.folder)),
    )


def _refuse_inner_links(ref: RepoRef) -> None:
    for inner in REPO_FOLDERS:
        if os.path.islink(ref.path / inner):
            raise OpError(
                ErrorType.PERMISSION_DENIED,
                f"'{inner}' of {ref.name} is a link, and links are not followed; nothing was deleted.",
                remedy=Remedy.REMOVE_MODEL_FIRST,
            )


def _commit(repo: Repo, revision: str) -> str:
    """Return the commit of a ref name or commit prefix, also of a partly removed revision."""
    try:
        snapshot = repo.find_snapshot(revision)
    except OpError as error:
        if error.type is not ErrorType.REVISION_NOT_FOUND:
            raise
        missing = {commit for commit in repo.refs.values() if commit not in repo.snapshots}
        if revision in repo.refs:
            return repo.refs[revision]
        hits = [commit for commit in missing if len(revision) >= 3 and commit.startswith(revision.lower())]
        if len(hits) == 1:
            return hits[0]
        raise
    return snapshot.name if snapshot else revision


def _remove(cache: Cache, plan: RemovePlan, *, force: bool, meter: Meter) -> RmData:
    repo = _read_removable(cache, plan.ref)
    name = plan.ref.folder_name
    check_deletion_allowed(cache.root)
    with open_cache(cache.root) as root, root.subfolder(name) as folder:
        if folder is None:
            info = root.lstat(name)
            raise _link_error(plan.ref) if info and stat.S_ISLNK(info.st_mode) else _removed_error(plan.ref)
        held = held_locks_in(root, name)
        if held and not force:
            raise _locks_error(plan, held)
        cross_links = find_cross_links(cache).get(name, {})
        if plan.revision is None and cross_links and not force:
            raise _cross_links_error(plan, cross_links)
        check_writable(plan.ref.path, cache.root)
        try:
            if plan.revision is None:
                freed, locks = _delete_model(root, folder, name, PayloadTracker.for_cache(cache), meter)
            else:
                freed, locks = _delete_revision(
                    root, folder, repo, plan.revision, PayloadTracker.for_cache(cache), cross_links, meter
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
        message=f"{format_size(freed)} freed{cleaned}.",
        freed_bytes=freed,
        lock_files_cleaned=locks,
        matches=[],
        lock_files=[],
    )


def _delete_model(
    root: Folder, folder: Folder, name: str, payloads: PayloadTracker, meter: Meter
) -> tuple[int, int]:
    """Delete a repo; return the bytes freed and the lock files cleaned."""
    folder.set_aside("snapshots", folder)
    freed = 0
    if payloads.store.exists():
        with folder.subfolder("blobs") as blobs:
            shared = blobs.names() if blobs is not None else []
            for blob in shared:
                if blobs is not None and payloads.store.payload_for(os.path.join(blobs.path, blob)):
                    freed_here = payloads.delete(blobs, blob)
                    freed += freed_here
                    meter.add(printable(blob), freed_here, files=1)
    freed += sum(payloads.store.release(payload) for payload in payloads.leftover_payloads(name))
    freed += folder.delete_contents(meter)
    locks = delete_locks(root, name, meter)
    for _ in range(_ATTEMPTS):
        if root.rmdir(name):
            return freed, locks
        freed += folder.delete_contents(meter)
    raise OpError(
        ErrorType.LOCKS_PRESENT,
        f"Another program keeps writing to {printable(folder.path)}.",
        remedy=Remedy.STOP_OTHER_PROGRAM,
    )


def _delete_revision(
    root: Folder,
    folder: Folder,
    repo: Repo,
    commit: str,
    payloads: PayloadTracker,
    cross_links: Mapping[str, Collection[str]],
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
    plan = plan_revision(repo, commit, payloads, cross_links=cross_links)
    name = repo.ref.folder_name
    # Leftovers of an earlier killed run come first: they may be all that remains to be deleted.
    freed = sum(payloads.store.release(payload) for payload in payloads.leftover_payloads(name))
    freed += delete_leftovers(folder, meter)
    freed += delete_revision(folder, plan, payloads, meter)
    locks = delete_stale_locks(root, name, plan.blobs)
    if set(repo.snapshots) <= {commit} and delete_if_empty(root, folder, name):
        locks += delete_locks(root, name, meter)
    return freed, locks


def _removed_error(ref: RepoRef) -> OpError:
    return OpError(
        ErrorType.MODEL_NOT_FOUND, f"{ref.name} is no longer in the cache; another process removed it."
    )


def _cross_links_error(plan: RemovePlan, cross_links: Mapping[str, Collection[str]]) -> OpError:
    users = sorted({user for names in cross_links.values() for user in names})
    message = (
        f"Other models would break, because they link to files of {plan.ref.name}: {', '.join(users[:3])}"
        f"{', …' if len(users) > 3 else ''}. Nothing was deleted."
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


def _locks_error(plan: RemovePlan, held: tuple[str, ...]) -> OpError:
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
