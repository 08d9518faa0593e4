"""Plans a pull: resolves the repo, checks access, compares it with the cache and checks free space.

Nothing is written. A full name means exactly that repo. A name without an organization means a cached
model of that name, ignoring case, else `mlx-community/NAME`, else NAME on the hub. A part of a name never
matches.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.cache.access_record import RepoAccess
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.names import DEFAULT_ORG, Spec, is_valid_repo_name, name_to_dir, parse_spec
from mlxk_tui.ops.cache.repo import COMMIT
from mlxk_tui.ops.catalog.catalog import list_repos
from mlxk_tui.ops.contract.results import MemoryFit
from mlxk_tui.ops.core.background import run_in_thread
from mlxk_tui.ops.core.errors import AccessReason, ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui.ops.core.files import free_bytes
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.ops.download.file_names import check_files
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.weights import loads_in_mlx
from mlxk_tui.ops.hub.errors import RequestContext
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.hub.responses import RepoInfo, TreeEntry
from mlxk_tui.ops.pull.local_files import LocalState, compare_with_cache
from mlxk_tui.ops.pull.patterns import FilePatterns

MAIN = "main"
"""The default revision."""
_WORKING_BYTES = 250_000_000
"""Buffers of a generation; the KV cache is not included, because the config is not available yet."""


@dataclass(frozen=True)
class PullPlan:
    """What a pull would download, and whether it fits."""

    spec: Spec
    repo: str
    """Full name of the repo."""
    ref: str
    """The requested branch, tag or commit."""
    commit: str
    """The commit of `ref` on the hub."""
    tree: tuple[TreeEntry, ...]
    """All files of the commit."""
    entries: tuple[TreeEntry, ...]
    """The files to pull: all of them, or those that match the patterns."""
    folder: Path
    """The repo's folder in the cache, which may not exist."""
    local: LocalState
    ref_is_current: bool
    """Whether the cached ref already names the commit."""
    disk_free: int | None
    """Free bytes on the cache's disk; None if unknown."""
    memory_bytes: int | None
    """Estimated memory in bytes, from the sizes of the weights."""
    memory_fit: MemoryFit | None
    license: str | None = None
    gated: bool = False
    private: bool = False
    access: RepoAccess | None = None
    """Whether the repo is gated or private; None if the hub did not say."""
    warnings: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        """Whether files of the commit are left out."""
        return len(self.entries) < len(self.tree)

    @property
    def missing(self) -> tuple[TreeEntry, ...]:
        """Files that are missing or broken in the snapshot."""
        return tuple(entry for entry in self.entries if entry.path not in self.local.present)

    @property
    def absent(self) -> tuple[TreeEntry, ...]:
        """Files that are missing, but not broken."""
        return tuple(entry for entry in self.missing if entry.path not in self.local.broken)

    @property
    def bytes_total(self) -> int:
        """Bytes of all files, each blob counted once."""
        return _bytes(self.entries)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes to download, without those in complete and partial files."""
        on_disk = {entry.etag for entry in self.entries if entry.path in self.local.linkable}
        on_disk |= {entry.etag for entry in self.entries if entry.path in self.local.present}
        absent = _bytes([entry for entry in self.missing if entry.etag not in on_disk])
        return max(0, absent - self.local.unfinished_bytes)

    @property
    def expanded_name(self) -> str | None:
        """The full name, if a short one was given."""
        return self.repo if self.repo != self.spec.name else None

    @property
    def lacks_space(self) -> OpError | None:
        """The error if the free space is insufficient, else None."""
        if self.disk_free is None or self.bytes_to_fetch <= self.disk_free:
            return None
        return OpError(
            ErrorType.DISK_FULL,
            f"{self.repo} needs {format_size(self.bytes_to_fetch)} more, but the cache's disk has only "
            f"{format_size(self.disk_free)} free.",
            remedy=Remedy.FREE_SPACE_OR_MOVE_CACHE,
            facts=ErrorFacts(needed_bytes=self.bytes_to_fetch, available_bytes=self.disk_free),
        )


def _bytes(entries: Sequence[TreeEntry]) -> int:
    return sum({entry.etag: entry.size for entry in entries}.values())


async def plan_pull(
    cache: Cache,
    spec_text: str,
    *,
    hub: Hub,
    verify: bool = False,
    suspect: Collection[str] = (),
    patterns: FilePatterns | None = None,
    runtime: Runtime | None = None,
    on_event: OnEvent = ignore_event,
) -> PullPlan:
    """Plan a pull of `NAME[@REV]`: query the hub and compare with the cache. Writes nothing.

    Args:
        cache: the cache to pull into.
        spec_text: `NAME[@REV]`.
        hub: the hub to pull from.
        verify: hash all cached files.
        suspect: paths whose content may be broken, which are hashed.
        patterns: plan only files that match.
        runtime: the memory to compare with; by default that of this machine.
        on_event: receives the progress of hashing, in threads.

    Raises:
        OpError: `validation_error` (also for invalid file names on the hub, and if no file matches),
            `access_denied` (its `reason` distinguishes a missing repo from one without access),
            `revision_not_found`, `network_error`, `download_failed` if the cached repo cannot be written to.
    """
    spec = parse_spec(spec_text)
    names = await asyncio.to_thread(candidate_names, cache, spec)
    try:
        found = await _find_on_hub(hub, names, spec.revision)
    except OpError as error:
        raise error.as_access_denied() from None

    entries = patterns.select(found.repo, found.entries) if patterns else found.entries

    def work(stop: threading.Event) -> PullPlan:
        local = compare_with_cache(
            cache,
            found.repo,
            found.commit,
            entries,
            verify=verify,
            suspect=suspect,
            stop=stop,
            on_event=on_event,
        )
        machine = runtime or Runtime.detect()
        weights = _bytes([entry for entry in found.entries if loads_in_mlx(entry.path)])
        memory = weights + _WORKING_BYTES if weights else None
        ref = spec.revision or MAIN
        refs = local.repo.refs if local.repo else {}
        return PullPlan(
            spec=spec,
            repo=found.repo,
            ref=ref,
            commit=found.commit,
            tree=found.entries,
            entries=entries,
            folder=cache.root / name_to_dir(found.repo),
            local=local,
            ref_is_current=ref == found.commit or refs.get(ref) == found.commit,
            disk_free=free_bytes(cache.root),
            memory_bytes=memory,
            memory_fit=machine.fit(memory),
            license=found.info.license if found.info else None,
            gated=found.info.gated if found.info else False,
            private=found.info.private if found.info else False,
            access=found.info.access if found.info else None,
            warnings=found.warnings,
        )

    return await run_in_thread(work)


def candidate_names(cache: Cache, spec: Spec) -> tuple[str, ...]:
    """Return the repos that a name can mean, the most likely first. Blocking.

    Raises:
        OpError: `validation_error` for a name or revision that is invalid on the hub.
    """
    if not is_valid_repo_name(spec.name):
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"'{printable(spec.name)}' is not a valid repo name.",
            remedy=Remedy.GIVE_REPO_NAME,
        )
    if spec.revision is not None and not _is_revision(spec.revision):
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"'{printable(spec.revision)[:100]}' is not a branch, a tag or a commit.",
        )
    if "/" in spec.name:
        return (spec.name,)
    expanded = f"{DEFAULT_ORG}/{spec.name}"
    try:
        cached = [ref.name for ref in list_repos(cache) if is_valid_repo_name(ref.name)]
    except OpError:  # problems of the cache are reported when it is written to
        cached = []
    for candidate in (spec.name, expanded):
        hits = [name for name in cached if name == candidate]
        if hits:
            return (hits[0],)
    for candidate in (expanded, spec.name):
        hits = [name for name in cached if name.casefold() == candidate.casefold()]
        if len(hits) == 1:
            return (hits[0],)
    return (expanded, spec.name)


def _is_revision(revision: str) -> bool:
    """Return whether git allows a ref of this name, and `refs/` can contain it."""
    forbidden = set(" ~^:?*[\\\x7f")
    return (
        len(revision) <= 200
        and revision.isprintable()
        and not forbidden & set(revision)
        and not any(
            part in {"", ".", ".."}
            or part.startswith(".")
            or part.endswith((".lock", "."))
            or len(part) > 100
            for part in revision.split("/")
        )
    )


@dataclass(frozen=True)
class _RemoteCommit:
    """An accessible commit of a repo on the hub."""

    repo: str
    commit: str
    entries: tuple[TreeEntry, ...]
    info: RepoInfo | None
    warnings: tuple[str, ...]


async def _find_on_hub(hub: Hub, names: Sequence[str], revision: str | None) -> _RemoteCommit:
    """Return the first of the names that exists on the hub, at a revision, with its files.

    A failed or odd response to one request only adds a warning; the following requests decide.
    """
    warnings: list[str] = []
    # Requested together with the metadata, because a round trip to a far hub takes a quarter of a second.
    access = asyncio.ensure_future(hub.check_access(names[0]))
    try:
        return await _find_accessible(hub, names, revision, access, warnings)
    finally:
        access.cancel()
        await asyncio.wait([access])
        if not access.cancelled():
            access.exception()  # marks it as retrieved; it was raised above if it matters


async def _find_accessible(
    hub: Hub, names: Sequence[str], revision: str | None, access: asyncio.Future[None], warnings: list[str]
) -> _RemoteCommit:
    """Continue `_find_on_hub`; `access` is the check for the first of the names."""
    repo, info = await _first_info(hub, names, revision, warnings)
    if info is not None:
        if info.disabled:
            raise OpError(
                ErrorType.ACCESS_DENIED,
                f"{repo} is disabled on the hub and cannot be downloaded.",
                reason=AccessReason.DISABLED,
            )
        try:
            await (access if repo == names[0] else hub.check_access(repo))
        except OpError as error:
            if error.type is not ErrorType.NETWORK_ERROR:
                raise
            warnings.append(f"Access to {repo} could not be checked: {error.message}")
        commit = info.commit
    else:
        commit = await _resolve_commit(hub, repo, revision or MAIN)
    if revision is not None and COMMIT.fullmatch(revision) and commit != revision:
        raise OpError(
            ErrorType.NETWORK_ERROR,
            f"The hub returned another commit of {repo} than {revision[:12]}.",
            remedy=Remedy.CHECK_ENDPOINT,
        )
    entries = await hub.files(repo, commit)
    check_files([entry.remote for entry in entries])
    return _RemoteCommit(repo, commit, entries, info, tuple(warnings))


async def _first_info(
    hub: Hub, names: Sequence[str], revision: str | None, warnings: list[str]
) -> tuple[str, RepoInfo | None]:
    for name in names:
        try:
            info = await hub.info(name, revision)
        except OpError as error:
            if error.type is ErrorType.REPO_NOT_FOUND and len(names) > 1:
                if name != names[-1]:
                    continue
                tried = f"Neither {' nor '.join(names)} is on {RequestContext(hub.endpoint).host}."
                raise error.as_type(error.type, tried) from None
            if error.type is not ErrorType.NETWORK_ERROR or hub.offline:
                raise
            warnings.append(f"The metadata of {name} could not be read: {error.message}")
            return name, None
        return info.repo, info
    raise AssertionError("no name to try")


async def _resolve_commit(hub: Hub, repo: str, revision: str) -> str:
    """Return the commit of a revision without using the hub's metadata."""
    if COMMIT.fullmatch(revision):
        return revision
    entries = await hub.files(repo, revision)
    if not entries:
        raise OpError(ErrorType.DOWNLOAD_FAILED, f"{repo} has no files at {printable(revision)}.")
    return await hub.resolve_commit(repo, revision, min(entries, key=lambda entry: entry.size).path)
