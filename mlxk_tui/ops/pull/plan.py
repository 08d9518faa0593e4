"""What a pull would do: which repo is meant, whether it may be read, what is there, what there is room for.

Nothing is written here. Names: a full name is that repo and nothing else. A name without an organisation
is a cached model of exactly that name, whatever the case, else `mlx-community/NAME`, else the hub's own
NAME. A part of a name never pulls anything.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from mlxk_tui.ops.core.text import printable, size
from mlxk_tui.ops.download.file_names import check_files
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.weights import loads_in_mlx
from mlxk_tui.ops.hub.errors import RequestContext
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.hub.responses import RepoInfo, TreeEntry
from mlxk_tui.ops.pull.local_files import Local, look

MAIN = "main"
"""The branch of a name without a revision."""
_WORKING_BYTES = 250_000_000
"""Buffers of a generation; the KV cache needs the config, which is not there yet."""


@dataclass(frozen=True)
class PullPlan:
    """What a pull would do."""

    spec: Spec
    repo: str
    """Full name of the repo."""
    ref: str
    """The branch, tag or commit that is asked for."""
    commit: str
    """The commit that it names on the hub."""
    entries: tuple[TreeEntry, ...]
    """Every file of the commit."""
    folder: Path
    """The repo's folder in the cache, which need not be there."""
    local: Local
    ref_is_current: bool
    """Whether the cache's ref names the commit already."""
    disk_free: int | None
    """Bytes."""
    memory_bytes: int | None
    """Estimate of the memory that the model needs, from the sizes of its weights."""
    memory_fit: MemoryFit | None
    license: str | None = None
    gated: bool = False
    private: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[TreeEntry, ...]:
        """Files that are not whole in the snapshot."""
        return tuple(entry for entry in self.entries if entry.path not in self.local.present)

    @property
    def absent(self) -> tuple[TreeEntry, ...]:
        """Files of which nothing is in the snapshot: missing, but not broken."""
        return tuple(entry for entry in self.missing if entry.path not in self.local.broken)

    @property
    def bytes_total(self) -> int:
        """Bytes of all files, each blob once."""
        return _bytes(self.entries)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes that are not on disk, neither in whole files nor in unfinished ones."""
        there = {entry.etag for entry in self.entries if entry.path in self.local.linkable}
        there |= {entry.etag for entry in self.entries if entry.path in self.local.present}
        absent = _bytes([entry for entry in self.missing if entry.etag not in there])
        return max(0, absent - self.local.unfinished_bytes)

    @property
    def expanded_name(self) -> str | None:
        """The full name, where another was given."""
        return self.repo if self.repo != self.spec.name else None

    @property
    def lacks_space(self) -> OpError | None:
        """What is wrong with the free space, or None."""
        if self.disk_free is None or self.bytes_to_fetch <= self.disk_free:
            return None
        return OpError(
            ErrorType.DISK_FULL,
            f"{self.repo} needs {size(self.bytes_to_fetch)} more, and only {size(self.disk_free)} are free "
            "where the cache lies.",
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
    doubted: Collection[str] = (),
    runtime: Runtime | None = None,
    on_event: OnEvent = ignore_event,
) -> PullPlan:
    """Ask the hub what a pull of `NAME[@REV]` would bring and compare it with the cache; writes nothing.

    Args:
        cache: where the model goes.
        spec_text: `NAME[@REV]`.
        hub: whom to ask.
        verify: hash every file that is there already.
        doubted: paths whose bytes are known to be wrong, or may be; they are hashed.
        runtime: what the memory is compared with; this machine when left out.
        on_event: receives progress of the hashing, from threads.

    Raises:
        OpError: `validation_error` (of a commit's file names too), `access_denied` (its `reason` tells a
            missing repo from one that may not be read), `revision_not_found`, `network_error`,
            `download_failed` where the cache cannot take it.
    """
    spec = parse_spec(spec_text)
    names = await asyncio.to_thread(names_to_try, cache, spec)
    try:
        found = await _find(hub, names, spec.revision)
    except OpError as error:
        raise error.as_access_denied() from None

    def work(stop: threading.Event) -> PullPlan:
        local = look(
            cache,
            found.repo,
            found.commit,
            found.entries,
            verify=verify,
            doubted=doubted,
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
            entries=found.entries,
            folder=cache.root / name_to_dir(found.repo),
            local=local,
            ref_is_current=ref == found.commit or refs.get(ref) == found.commit,
            disk_free=free_bytes(cache.root),
            memory_bytes=memory,
            memory_fit=machine.fit(memory),
            license=found.info.license if found.info else None,
            gated=found.info.gated if found.info else False,
            private=found.info.private if found.info else False,
            warnings=found.warnings,
        )

    return await run_in_thread(work)


def names_to_try(cache: Cache, spec: Spec) -> tuple[str, ...]:
    """Return the repos that a name can stand for, the likeliest first; blocking, for threads.

    Raises:
        OpError: `validation_error` for a name or revision that the hub cannot have.
    """
    if not is_valid_repo_name(spec.name):
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"'{printable(spec.name)}' is not a name that the hub allows.",
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
    except OpError:  # what is wrong with the cache is told when something is to be written
        cached = []
    for wanted in (spec.name, expanded):
        hits = [name for name in cached if name == wanted]
        if hits:
            return (hits[0],)
    for wanted in (expanded, spec.name):
        hits = [name for name in cached if name.casefold() == wanted.casefold()]
        if len(hits) == 1:
            return (hits[0],)
    return (expanded, spec.name)


def _is_revision(revision: str) -> bool:
    """Return whether git could have a ref of this name, and `refs/` hold it."""
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
class _OnHub:
    """A commit of a repo on the hub that may be read."""

    repo: str
    commit: str
    entries: tuple[TreeEntry, ...]
    info: RepoInfo | None
    warnings: tuple[str, ...]


async def _find(hub: Hub, names: Sequence[str], revision: str | None) -> _OnHub:
    """Return the first of the names that is on the hub, at a revision, with its files.

    A hub that does not answer one question, or oddly, is asked the next: its answers to those decide.
    """
    warnings: list[str] = []
    repo, info = await _info(hub, names, revision, warnings)
    if info is not None:
        if info.disabled:
            raise OpError(
                ErrorType.ACCESS_DENIED,
                f"{repo} is disabled on the hub: nobody can download it now.",
                reason=AccessReason.DISABLED,
            )
        try:
            await hub.check_access(repo)
        except OpError as error:
            if error.type is not ErrorType.NETWORK_ERROR:
                raise
            warnings.append(f"Whether {repo} may be read could not be checked: {error.message}")
        commit = info.commit
    else:
        commit = await _commit(hub, repo, revision or MAIN)
    if revision is not None and COMMIT.fullmatch(revision) and commit != revision:
        raise OpError(
            ErrorType.NETWORK_ERROR,
            f"The hub answers with another commit of {repo} than {revision[:12]}.",
            remedy=Remedy.CHECK_ENDPOINT,
        )
    entries = await hub.files(repo, commit)
    check_files([entry.remote for entry in entries])
    return _OnHub(repo, commit, entries, info, tuple(warnings))


async def _info(
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
            warnings.append(f"Whether {name} can be pulled could not be checked: {error.message}")
            return name, None
        return info.repo, info
    raise AssertionError("no name to try")


async def _commit(hub: Hub, repo: str, revision: str) -> str:
    """Return the commit of a revision without the hub's metadata."""
    if COMMIT.fullmatch(revision):
        return revision
    entries = await hub.files(repo, revision)
    if not entries:
        raise OpError(ErrorType.DOWNLOAD_FAILED, f"{repo} has no files at {printable(revision)}.")
    return await hub.resolve_commit(repo, revision, min(entries, key=lambda entry: entry.size).path)
