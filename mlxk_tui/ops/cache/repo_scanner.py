"""Scans a repo's folder in one pass: one scandir for each folder and one stat for each blob.

Only refs are opened. A broken repo never raises: unreadable parts become findings.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.repo import COMMIT, Blob, Inode, Repo, Snapshot, SnapshotFile
from mlxk_tui.ops.contract.results import Finding, FindingCode, Fix, Severity
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.files import read_bytes
from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.text import printable

_STORE_NAME = re.compile(r"[0-9a-f]{64}")
_FOLDERS = frozenset({"blobs", "refs", "snapshots", "trees"})
_MAX_DEPTH = 16
_MAX_FILES = 50_000
_MAX_REF_BYTES = 512
_MAX_INVALID_REFS = 20


def read_repo(cache: Cache, ref: RepoRef) -> Repo:
    """Scan a repo's folder, with one scandir for each folder and one stat for each blob.

    Raises:
        OpError: `model_not_found` if the repo was removed meanwhile. Other problems become findings in
            `Repo.problems`.
    """
    return _RepoScanner(cache, ref).scan()


@dataclass(frozen=True)
class _LinkTarget:
    """The resolved target of a link that huggingface_hub did not create, or why it is rejected."""

    path: str | None = None
    size: int | None = None
    problem: FindingCode | None = None
    inode: Inode | None = None


@dataclass
class _RepoScanner:
    """State of one scan: findings, blobs and the paths read so far."""

    cache: Cache
    ref: RepoRef
    problems: list[Finding] = field(default_factory=list)
    blobs: dict[str, Blob] = field(default_factory=dict)
    allowed: tuple[str, ...] | None = None
    fingerprint_paths: list[str] = field(default_factory=list)
    only_standard_links: bool = True

    def scan(self) -> Repo:
        root = self.ref.folder
        try:
            folder = os.lstat(root)
        except OSError:
            raise OpError(
                ErrorType.MODEL_NOT_FOUND, f"{self.ref.name} was removed from the cache meanwhile."
            ) from None
        names = {entry.name for entry in self._scan(root) if self._stays_inside(entry)}
        if "blobs" in names:
            self._read_blobs(os.path.join(root, "blobs"))
        snapshots = self._read_snapshots(os.path.join(root, "snapshots")) if "snapshots" in names else {}
        refs = self._read_refs(os.path.join(root, "refs"), snapshots) if "refs" in names else {}
        lists: dict[str, list[str]] = {".json": [], ".selection": []}
        for entry in self._scan(os.path.join(root, "trees")) if "trees" in names else ():
            commit, ending = os.path.splitext(entry.name)
            if ending in lists:
                lists[ending].append(commit)
                self.fingerprint_paths.append(entry.path)
        return Repo(
            self.ref,
            stat.S_ISLNK(folder.st_mode),
            folder.st_mtime,
            refs,
            snapshots,
            self.blobs,
            frozenset(lists[".json"]),
            tuple(self.problems),
            tuple(self.fingerprint_paths) if self.only_standard_links else (),
            frozenset(lists[".selection"]),
        )

    def _scan(self, path: str) -> list[os.DirEntry[str]]:
        self.fingerprint_paths.append(path)
        try:
            with os.scandir(path) as entries:
                return list(entries)
        except FileNotFoundError:
            return []
        except OSError as error:
            name = os.path.relpath(path, self.ref.path)
            self.problems.append(unreadable_finding(None if name == "." else name, error))
            return []

    def _stays_inside(self, entry: os.DirEntry[str]) -> bool:
        """Return whether a part of the repo is a folder, or a link to one inside the cache."""
        if entry.name not in _FOLDERS or not entry.is_symlink():
            return True
        target = os.path.realpath(entry.path)
        if target.startswith(self._roots()):
            self.fingerprint_paths.append(target)
            return True
        self.problems.append(
            Finding(
                code=FindingCode.LINK_OUTSIDE_CACHE,
                severity=Severity.ERROR,
                path=entry.name,
                message=f"{entry.name} is a link to a target outside the cache.",
                fix=Fix.REMOVE,
            )
        )
        return False

    def _roots(self) -> tuple[str, ...]:
        if self.allowed is None:
            roots = (os.fspath(self.cache.root), self.ref.folder)
            self.allowed = tuple(os.path.join(os.path.realpath(root), "") for root in roots)
        return self.allowed

    def _read_blobs(self, folder: str) -> None:
        for entry in self._scan(folder):
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:  # deleted meanwhile: another process renamed a finished download
                continue
            if stat.S_ISREG(info.st_mode):
                inode = (info.st_dev, info.st_ino)
                blob = Blob(entry.name, entry.path, info.st_size, info.st_mtime, inode=inode)
            elif stat.S_ISLNK(info.st_mode):
                blob = self._read_linked_blob(entry, info.st_mtime)
            else:
                continue
            self.blobs[entry.name] = blob
            self.fingerprint_paths.append(entry.path)
            if blob.shared is not None:
                self.fingerprint_paths.append(blob.shared)

    def _read_linked_blob(self, entry: os.DirEntry[str], modified: float) -> Blob:
        """Follow a blob's link into the shared store; other links must stay inside the repo or cache."""
        try:
            link = os.readlink(entry.path)
        except OSError:
            return Blob(entry.name, entry.path, None, modified, problem=FindingCode.BROKEN_LINK)
        store = os.path.join(os.fspath(self.cache.root), "blobs")
        target = os.path.normpath(os.path.join(os.path.dirname(entry.path), link))
        prefix, name = os.path.split(target)
        if os.path.dirname(prefix) == store and _STORE_NAME.fullmatch(name):
            try:
                info = os.lstat(target)
            except OSError:
                return Blob(entry.name, entry.path, None, modified, problem=FindingCode.BROKEN_LINK)
            if stat.S_ISREG(info.st_mode):
                inode = (info.st_dev, info.st_ino)
                return Blob(entry.name, entry.path, info.st_size, info.st_mtime, shared=target, inode=inode)
        link_target = self._follow(entry.path)
        return Blob(
            entry.name,
            entry.path,
            link_target.size,
            modified,
            link_target.path,
            link_target.problem,
            link_target.inode,
        )

    def _follow(self, path: str) -> _LinkTarget:
        """Resolve a link that huggingface_hub did not create."""
        self.only_standard_links = False
        try:
            resolved = os.path.realpath(path, strict=True)
            info = os.lstat(resolved)
        except PermissionError:
            return _LinkTarget(problem=FindingCode.UNREADABLE)
        except OSError:  # a dangling link, or a loop
            return _LinkTarget(problem=FindingCode.BROKEN_LINK)
        if not resolved.startswith(self._roots()):
            return _LinkTarget(problem=FindingCode.LINK_OUTSIDE_CACHE)
        if not stat.S_ISREG(info.st_mode):
            return _LinkTarget(problem=FindingCode.UNREADABLE)
        return _LinkTarget(resolved, info.st_size, inode=(info.st_dev, info.st_ino))

    def _read_snapshots(self, folder: str) -> dict[str, Snapshot]:
        found: dict[str, Snapshot] = {}
        for entry in self._scan(folder):
            try:
                if entry.is_symlink():
                    self.problems.append(_snapshot_link_finding(entry.name))
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    continue
                modified = entry.stat(follow_symlinks=False).st_mtime
            except OSError:
                continue
            before = len(self.problems)
            files: list[SnapshotFile] = []
            self._walk(entry.path, "", files, 0)
            problems, self.problems = self.problems[before:], self.problems[:before]
            files.sort(key=lambda file: file.name)
            found[entry.name] = Snapshot(entry.name, entry.path, modified, tuple(files), tuple(problems))
        return found

    def _walk(self, folder: str, prefix: str, files: list[SnapshotFile], depth: int) -> None:
        for entry in self._scan(folder):
            if is_macos_metadata(entry.name):
                continue
            name = prefix + entry.name
            if len(files) >= _MAX_FILES or depth > _MAX_DEPTH:
                self.problems.append(_too_deep_finding(printable(prefix) or None))
                return
            if entry.is_symlink():
                files.append(self._read_linked_file(name, entry.path))
            elif entry.is_dir(follow_symlinks=False):
                self._walk(entry.path, f"{name}/", files, depth + 1)
            else:
                files.append(_read_plain_file(name, entry))
                self.fingerprint_paths.append(entry.path)

    def _read_linked_file(self, name: str, path: str) -> SnapshotFile:
        try:
            link = os.readlink(path)
        except OSError:
            return SnapshotFile(name, path, None, None, None, FindingCode.BROKEN_LINK)
        # huggingface_hub's form: up out of the snapshot, then blobs/<etag>.
        parent, _, etag = link.rpartition("/")
        blob = self.blobs.get(etag) if parent == "../" * (name.count("/") + 2) + "blobs" else None
        if blob is None:
            target = os.path.normpath(os.path.join(os.path.dirname(path), link))
            folder, etag = os.path.split(target)
            blob = self.blobs.get(etag) if folder == os.path.join(self.ref.folder, "blobs") else None
        if blob is not None:
            return SnapshotFile(name, path, blob.target, blob.size, etag, blob.problem)
        found = self._follow(path)
        self.fingerprint_paths.append(found.path or path)
        return SnapshotFile(name, path, found.path, found.size, None, found.problem)

    def _read_refs(self, folder: str, snapshots: dict[str, Snapshot]) -> dict[str, str]:
        refs: dict[str, str] = {}
        invalid = 0
        pending = [(folder, "", 0)]
        while pending:
            path, prefix, depth = pending.pop()
            for entry in self._scan(path):
                if is_macos_metadata(entry.name):
                    continue
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    if depth < _MAX_DEPTH:
                        pending.append((entry.path, f"{name}/", depth + 1))
                    continue
                self.fingerprint_paths.append(entry.path)
                commit = _read_ref(entry)
                if commit is not None and (COMMIT.fullmatch(commit) or commit in snapshots):
                    refs[name] = commit
                elif invalid < _MAX_INVALID_REFS:
                    invalid += 1
                    self.problems.append(_invalid_ref_finding(name))
        return refs


def is_macos_metadata(name: str) -> bool:
    """Return whether a file is macOS metadata: `.DS_Store`, or `._x` beside x on a foreign file system."""
    return name == ".DS_Store" or name.startswith("._")


def _snapshot_link_finding(name: str) -> Finding:
    path = f"snapshots/{printable(name)}"
    return Finding(
        code=FindingCode.UNREADABLE,
        severity=Severity.ERROR,
        path=path,
        message=f"{path} is a link, and links are not followed.",
        fix=Fix.NONE,
    )


def _read_plain_file(name: str, entry: os.DirEntry[str]) -> SnapshotFile:
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError:
        return SnapshotFile(name, entry.path, None, None, None, FindingCode.UNREADABLE)
    if not stat.S_ISREG(info.st_mode):  # opening a pipe, a socket or a device could block
        return SnapshotFile(name, entry.path, None, None, None, FindingCode.UNREADABLE)
    inode = (info.st_dev, info.st_ino)
    return SnapshotFile(name, entry.path, entry.path, info.st_size, None, inode=inode)


def _read_ref(entry: os.DirEntry[str]) -> str | None:
    if not entry.is_file(follow_symlinks=False):
        return None
    raw = read_bytes(entry.path, _MAX_REF_BYTES)
    if raw is None or len(raw) > _MAX_REF_BYTES:
        return None
    try:
        return raw.decode("ascii").strip() or None
    except UnicodeDecodeError:
        return None


def unreadable_finding(path: str | None, error: OSError) -> Finding:
    """Return the finding for a file or folder that cannot be read."""
    shown = printable(path) if path else None
    return Finding(
        code=FindingCode.UNREADABLE,
        severity=Severity.ERROR,
        path=shown,
        message=f"{shown or 'The folder'} cannot be read: {error_reason(error)}.",
        fix=Fix.NONE,
    )


def _too_deep_finding(path: str | None) -> Finding:
    return Finding(
        code=FindingCode.UNREADABLE,
        severity=Severity.ERROR,
        path=path,
        message=f"The snapshot has more than {_MAX_FILES:,} files or {_MAX_DEPTH} levels of folders.",
        fix=Fix.REMOVE,
    )


def _invalid_ref_finding(name: str) -> Finding:
    shown = printable(name)
    return Finding(
        code=FindingCode.REF_INVALID,
        severity=Severity.ERROR if name == "main" else Severity.WARNING,
        path=f"refs/{shown}",
        message=f"refs/{shown} does not contain a commit.",
        fix=Fix.PULL,
    )
