"""Compares the cached files of a repo with a commit on the hub: complete, broken or missing."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.documents import read_documents
from mlxk_tui.ops.cache.names import name_to_dir
from mlxk_tui.ops.cache.repo import Repo, Snapshot, SnapshotFile
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.contract.results import Finding, FindingCode, Fix, Severity
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.partial_blob import resumable_bytes
from mlxk_tui.ops.health.integrity import check_integrity
from mlxk_tui.ops.health.verify import verify_repo
from mlxk_tui.ops.hub.responses import TreeEntry

_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class LocalState:
    """The files of a commit that are on disk."""

    repo: Repo | None = None
    """The cached repo; None if there is none."""
    present: frozenset[str] = frozenset()
    """Paths of files that are complete in the snapshot, as far as was checked."""
    linkable: frozenset[str] = frozenset()
    """Paths whose blob exists because of another revision: only the snapshot's link is missing."""
    broken: frozenset[str] = frozenset()
    """Paths that exist but differ from the hub's files."""
    unfinished_bytes: int = 0
    """Bytes in unfinished downloads of the missing files."""
    upstream_problems: tuple[Finding, ...] = ()
    """Problems of files that are identical on the hub."""


def repo_ref(cache: Cache, name: str) -> RepoRef:
    """Return the cache's entry for a repo, which may not exist."""
    return RepoRef(name, os.path.join(os.fspath(cache.root), name_to_dir(name)))


def read_cached(cache: Cache, name: str) -> Repo | None:
    """Read a cached repo; return None if there is none. Blocking."""
    try:
        return read_repo(cache, repo_ref(cache, name))
    except OpError as error:
        if error.type is ErrorType.MODEL_NOT_FOUND:
            return None
        raise


def compare_with_cache(
    cache: Cache,
    name: str,
    commit: str,
    entries: Collection[TreeEntry],
    *,
    verify: bool,
    suspect: Collection[str],
    stop: threading.Event,
    on_event: OnEvent,
) -> LocalState:
    """Compare a cached repo with the files of a commit. Blocking; call it in a thread.

    Sizes and blob names are always compared. The content is hashed for files that look damaged (a truncated
    or invalid header, broken JSON), for `suspect` paths, and for all files with `verify`.

    Raises:
        OpError: `download_failed` if a folder of the repo is a link to a target outside the cache.
    """
    repo = read_cached(cache, name)
    if repo is None:
        return LocalState()
    if any(_is_part_outside(finding) for finding in repo.problems):
        raise OpError(
            ErrorType.DOWNLOAD_FAILED,
            f"A folder of {name} in the cache is a link to a target outside the cache.",
            remedy=Remedy.REMOVE_MODEL_FIRST,
        )
    snapshot = repo.snapshots.get(commit)
    cached = {file.name: file for file in snapshot.files} if snapshot else {}
    present: dict[str, SnapshotFile] = {}
    linkable: dict[str, SnapshotFile] = {}
    broken: set[str] = set()
    for entry in entries:
        file = cached.get(entry.path)
        if file is None:
            blob = _find_blob(repo, entry)
            if blob is not None:
                linkable[entry.path] = blob
        elif _is_whole(file, entry):
            present[entry.path] = dataclasses.replace(file, etag=entry.etag)
        else:
            broken.add(entry.path)
    findings = _findings(repo, snapshot) if snapshot else ()
    suspicious = _suspicious_files(findings, present)
    hashed = (
        {**present, **linkable}
        if verify
        else {path: file for path, file in present.items() if path in suspicious or path in suspect}
    )
    mismatched = _mismatched(repo, commit, hashed.values(), stop, on_event)
    return LocalState(
        repo,
        frozenset(present.keys() - mismatched),
        frozenset(linkable.keys() - mismatched),
        frozenset(broken | mismatched),
        _unfinished_bytes(repo, [entry for entry in entries if entry.path not in present | linkable]),
        tuple(finding for path, finding in suspicious.items() if path not in mismatched),
    )


def _unfinished_bytes(repo: Repo, entries: Iterable[TreeEntry]) -> int:
    """Return the bytes that the downloader can resume with."""
    sizes = {entry.etag: entry.size for entry in entries if entry.etag not in repo.blobs}
    try:
        folder = os.open(os.path.join(repo.ref.folder, "blobs"), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return 0
    try:
        return sum(resumable_bytes(folder, etag, size) for etag, size in sizes.items())
    finally:
        os.close(folder)


def _is_part_outside(finding: Finding) -> bool:
    """Return whether a finding is that blobs, refs, snapshots or trees is a link out of the cache."""
    return finding.code is FindingCode.LINK_OUTSIDE_CACHE and "/" not in (finding.path or "/")


def _is_whole(file: SnapshotFile, entry: TreeEntry) -> bool:
    """Return whether a file matches the hub's by size, and by its blob's name if that is an etag."""
    other_etag = file.etag is not None and _ETAG.fullmatch(file.etag) and file.etag != entry.etag
    return file.problem is None and file.target is not None and file.size == entry.size and not other_etag


def _find_blob(repo: Repo, entry: TreeEntry) -> SnapshotFile | None:
    blob = repo.blobs.get(entry.etag)
    if blob is None or blob.target is None or blob.size != entry.size:
        return None
    return SnapshotFile(entry.path, blob.path, blob.target, blob.size, blob.name)


def _findings(repo: Repo, snapshot: Snapshot) -> tuple[Finding, ...]:
    return check_integrity(repo, snapshot, read_documents(snapshot)).findings


def _suspicious_files(findings: Iterable[Finding], present: Mapping[str, SnapshotFile]) -> dict[str, Finding]:
    """Return the files that look damaged although their size is right, each with its finding."""
    by_shown = {printable(path): path for path in present}
    return {
        by_shown[finding.path]: finding
        for finding in findings
        if finding.path in by_shown and finding.severity is Severity.ERROR and finding.fix is Fix.PULL
    }


def _mismatched(
    repo: Repo, commit: str, files: Iterable[SnapshotFile], stop: threading.Event, on_event: OnEvent
) -> set[str]:
    """Return the paths of files whose content differs from their checksum."""
    hashed_files = tuple(files)
    if not hashed_files:
        return set()
    # Each blob is hashed once, under one of its paths.
    names: dict[str, list[str]] = {}
    for file in hashed_files:
        names.setdefault(file.target or "", []).append(file.name)
    shown = {printable(file.name): file.target or "" for file in hashed_files}
    result = verify_repo(repo, Snapshot(commit, "", 0.0, hashed_files), stop, on_event)
    return {name for finding in result.findings for name in names[shown[finding.path or ""]]}
