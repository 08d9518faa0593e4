"""What of a commit is on disk already: which files are whole, which are broken, which are not there."""

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
from mlxk_tui.ops.download.partial_blob import resumable
from mlxk_tui.ops.health.integrity import check_integrity
from mlxk_tui.ops.health.verify import verify_repo
from mlxk_tui.ops.hub.responses import TreeEntry

_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Local:
    """What of a commit is on disk."""

    repo: Repo | None = None
    """The cached repo, or None where there is none."""
    present: frozenset[str] = frozenset()
    """Paths of the files that are in the snapshot, as far as was looked at."""
    linkable: frozenset[str] = frozenset()
    """Paths whose bytes another revision has brought: only the entry in the snapshot is missing."""
    broken: frozenset[str] = frozenset()
    """Paths that are there and are not what the hub has."""
    unfinished_bytes: int = 0
    """What unfinished downloads have brought of the files that are missing."""
    odd: tuple[Finding, ...] = ()
    """What is wrong with files although they are what the hub has."""


def repo_ref(cache: Cache, name: str) -> RepoRef:
    """Return the cache's entry for a repo, whether it is there or not."""
    return RepoRef(name, os.path.join(os.fspath(cache.root), name_to_dir(name)))


def read_cached(cache: Cache, name: str) -> Repo | None:
    """Read a cached repo; None where there is none. Blocking, for threads."""
    try:
        return read_repo(cache, repo_ref(cache, name))
    except OpError as error:
        if error.type is ErrorType.MODEL_NOT_FOUND:
            return None
        raise


def look(
    cache: Cache,
    name: str,
    commit: str,
    entries: Collection[TreeEntry],
    *,
    verify: bool,
    doubted: Collection[str],
    stop: threading.Event,
    on_event: OnEvent,
) -> Local:
    """Compare a cached repo with the files of a commit; blocking, for threads.

    Sizes and names of blobs are always compared. Bytes are hashed where a file looks damaged (a truncated
    or nonsensical header, broken JSON), where it is doubted, and everywhere with `verify`.

    Raises:
        OpError: `download_failed` where a part of the repo is a link that leads out of the cache.
    """
    repo = read_cached(cache, name)
    if repo is None:
        return Local()
    if any(_leads_out(finding) for finding in repo.problems):
        raise OpError(
            ErrorType.DOWNLOAD_FAILED,
            f"A folder of {name} in the cache is a link that leads elsewhere.",
            remedy=Remedy.REMOVE_MODEL_FIRST,
        )
    snapshot = repo.snapshots.get(commit)
    there = {file.name: file for file in snapshot.files} if snapshot else {}
    present: dict[str, SnapshotFile] = {}
    linkable: dict[str, SnapshotFile] = {}
    broken: set[str] = set()
    for entry in entries:
        file = there.get(entry.path)
        if file is None:
            blob = _blob(repo, entry)
            if blob is not None:
                linkable[entry.path] = blob
        elif _is_whole(file, entry):
            present[entry.path] = dataclasses.replace(file, etag=entry.etag)
        else:
            broken.add(entry.path)
    findings = _findings(repo, snapshot) if snapshot else ()
    suspects = _suspects(findings, present)
    hashed = (
        {**present, **linkable}
        if verify
        else {path: file for path, file in present.items() if path in suspects or path in doubted}
    )
    wrong = _mismatched(repo, commit, hashed.values(), stop, on_event)
    return Local(
        repo,
        frozenset(present.keys() - wrong),
        frozenset(linkable.keys() - wrong),
        frozenset(broken | wrong),
        _unfinished(repo, [entry for entry in entries if entry.path not in present | linkable]),
        tuple(finding for path, finding in suspects.items() if path not in wrong),
    )


def _unfinished(repo: Repo, entries: Iterable[TreeEntry]) -> int:
    """Return the bytes that the downloader can go on from."""
    sizes = {entry.etag: entry.size for entry in entries if entry.etag not in repo.blobs}
    try:
        folder = os.open(os.path.join(repo.ref.folder, "blobs"), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return 0
    try:
        return sum(resumable(folder, etag, size) for etag, size in sizes.items())
    finally:
        os.close(folder)


def _leads_out(finding: Finding) -> bool:
    """Return whether a finding is about blobs, refs, snapshots or trees being a link out of the cache."""
    return finding.code is FindingCode.LINK_OUTSIDE_CACHE and "/" not in (finding.path or "/")


def _is_whole(file: SnapshotFile, entry: TreeEntry) -> bool:
    """Return whether a file can be the hub's: by its size, and its blob's name where that is an etag."""
    named_otherwise = file.etag is not None and _ETAG.fullmatch(file.etag) and file.etag != entry.etag
    return (
        file.problem is None and file.target is not None and file.size == entry.size and not named_otherwise
    )


def _blob(repo: Repo, entry: TreeEntry) -> SnapshotFile | None:
    blob = repo.blobs.get(entry.etag)
    if blob is None or blob.target is None or blob.size != entry.size:
        return None
    return SnapshotFile(entry.path, blob.path, blob.target, blob.size, blob.name)


def _findings(repo: Repo, snapshot: Snapshot) -> tuple[Finding, ...]:
    return check_integrity(repo, snapshot, read_documents(snapshot)).findings


def _suspects(findings: Iterable[Finding], present: Mapping[str, SnapshotFile]) -> dict[str, Finding]:
    """Return the files that look damaged though their size is right, with what is wrong with each."""
    by_shown = {printable(path): path for path in present}
    return {
        by_shown[finding.path]: finding
        for finding in findings
        if finding.path in by_shown and finding.severity is Severity.ERROR and finding.fix is Fix.PULL
    }


def _mismatched(
    repo: Repo, commit: str, files: Iterable[SnapshotFile], stop: threading.Event, on_event: OnEvent
) -> set[str]:
    """Return the paths of the files whose bytes differ from their checksum."""
    wanted = tuple(files)
    if not wanted:
        return set()
    # Each blob is hashed once, under one of its names.
    names: dict[str, list[str]] = {}
    for file in wanted:
        names.setdefault(file.target or "", []).append(file.name)
    shown = {printable(file.name): file.target or "" for file in wanted}
    result = verify_repo(repo, Snapshot(commit, "", 0.0, wanted), stop, on_event)
    return {name for finding in result.findings for name in names[shown[finding.path or ""]]}
