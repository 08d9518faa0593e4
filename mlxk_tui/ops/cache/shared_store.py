"""The cache-wide payload store of huggingface_hub 2: finds references to payloads, deletes unused ones.

Format (huggingface_hub 2.4): `<cache>/blobs` is a store if it contains the marker file. A payload is
the read-only file `blobs/<first two digits>/<64 hex digits>`; a repo's `blobs/<etag>` is then a relative
link to it. `<payload>.refs` lists those links, one per line and relative to the cache;
`<payload>.lock` is locked for every change. The list is only a hint: a line counts if the link exists
and points to the payload.

A payload is deleted only if the store is marked, the list exists and is readable, none of its lines is
a live link, and no repo of the cache links to it. In every other case it stays: a leaked payload costs
disk space, a deleted one that is in use costs a model.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from mlxk_tui.ops.cache.deletion import freed_by_unlink, open_cache
from mlxk_tui.ops.core.files import replace_file

MARKER = ".huggingface-shared-blobs"
_LAYOUT = b"1\n"
_NAME = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{2}")
_REPO_FOLDER = re.compile(r"[^.].*--.+", re.DOTALL)
_MAX_MANIFEST_BYTES = 16_000_000
_LOCK_SECONDS = 0.5


def _do_nothing() -> None:
    """Do nothing: there is no link to remove."""


class SharedStore:
    """The payload store of a cache, which may not exist."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        """The cache folder."""
        self.path = self.root / "blobs"

    def exists(self) -> bool:
        """Return whether the cache has a store with the supported layout (marked, version 1)."""
        if not _has_type(self.path, stat.S_ISDIR):
            return False
        return _read_regular(self.path / MARKER, len(_LAYOUT) + 1) == _LAYOUT

    def payload_for(self, blob: str | os.PathLike[str]) -> Path | None:
        """Return the payload that a repo's blob links to, even if it is missing; None for other blobs."""
        try:
            link = os.readlink(blob)
        except OSError:
            return None
        return self._canonical(os.path.join(os.path.dirname(os.path.abspath(blob)), link))

    def payloads(self) -> list[Path]:
        """Return the paths of all payloads, sorted."""
        return sorted(
            Path(entry.path)
            for folder in _folders(self.path)
            if _PREFIX.fullmatch(folder.name)
            for entry in _entries(folder.path)
            if _NAME.fullmatch(entry.name)
            and entry.name.startswith(folder.name)
            and entry.is_file(follow_symlinks=False)
        )

    def links(self) -> dict[Path, set[Path]]:
        """Return the blobs that link to each payload; reads all `blobs` folders of the cache once."""
        found: dict[Path, set[Path]] = {}
        for repo in _folders(self.root):
            if not _REPO_FOLDER.fullmatch(repo.name):
                continue
            blobs = os.path.join(repo.path, "blobs")
            if not _has_type(blobs, stat.S_ISDIR):
                continue
            for entry in _entries(blobs):
                payload = self.payload_for(entry.path) if entry.is_symlink() else None
                if payload is not None:
                    found.setdefault(payload, set()).add(Path(entry.path))
        return found

    def references(self, payload: Path) -> frozenset[Path] | None:
        """Return the live links in a payload's list; None if the list cannot be read or checked."""
        lines = self._manifest(payload) if _has_type(payload.parent, stat.S_ISDIR) else None
        if lines is None:
            return None
        live: set[Path] = set()
        for line in lines:
            if not line or os.path.isabs(line) or ".." in line.split("/"):
                continue
            link = self.root / line
            try:
                target = os.readlink(link)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                if _has_type(link, lambda mode: not stat.S_ISLNK(mode)):  # no longer a link
                    continue
                return None
            if self._canonical(os.path.join(link.parent, target)) == payload:
                live.add(link)
        return frozenset(live)

    def payloads_listing(self, folder: str) -> set[Path]:
        """Return the payloads whose list names a blob of this repo folder, live or not.

        After an aborted deletion the lists are the only record of the repo's payloads.
        """
        found: set[Path] = set()
        for payload in self.payloads():
            lines = self._manifest(payload)
            if lines is not None and any(line.startswith(f"{folder}/") for line in lines):
                found.add(payload)
        return found

    def freed_by(self, payload: Path, removing: Collection[Path], links: Collection[Path] = ()) -> int:
        """Return the bytes that deleting blobs frees in the store: the size of the payload, or 0.

        Args:
            payload: a path returned by `payload_for`.
            removing: the blobs to be deleted.
            links: all blobs that link to the payload according to `links()`.
        """
        live = self.references(payload)
        if live is None or not {*live, *links} <= set(removing):
            return 0
        return freed_by_unlink(payload)

    def release(
        self, payload: Path, *, remove_link: Callable[[], None] = _do_nothing, links: Collection[Path] = ()
    ) -> int:
        """Delete a payload without remaining references, under its lock.

        Args:
            payload: a path returned by `payload_for`, `payloads` or `payloads_listing`.
            remove_link: deletes the repo's link. It is called exactly once, under the lock if that can be
                acquired, so that no process can add a reference in between.
            links: all blobs that link to the payload according to `links()`.

        Returns:
            Bytes freed; 0 if the payload stays, because it is used or in doubt.
        """
        if (
            not self.exists()
            or self._canonical(payload) != payload
            or not _has_type(payload.parent, stat.S_ISDIR)
        ):
            remove_link()
            return 0
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(_locked(payload))
            except (OSError, Timeout):
                # The link can be deleted without the lock, since the list is compared with existing links.
                # The payload cannot; prune finds it later.
                remove_link()
                return 0
            remove_link()
            try:
                return self._delete_if_unreferenced(payload, links)
            except OSError:
                return 0

    def unreferenced(self) -> dict[Path, int]:
        """Return the payloads that `release` would delete, with the bytes freed."""
        if not self.exists():
            return {}
        payloads = self.payloads()
        links = self.links() if payloads else {}
        return {
            payload: freed_by_unlink(payload)
            for payload in payloads
            if payload not in links and self.references(payload) == frozenset()
        }

    def _delete_if_unreferenced(self, payload: Path, links: Collection[Path]) -> int:
        live = self.references(payload)
        if live is None:
            return 0
        manifest = _sidecar(payload, ".refs")
        if live:
            self._rewrite(manifest, live)
            return 0
        if any(self.payload_for(link) == payload for link in links) or not _has_type(payload, stat.S_ISREG):
            return 0
        with (
            open_cache(self.root) as root,
            root.subfolder(self.path.name) as store,
            store.subfolder(payload.parent.name) if store else contextlib.nullcontext() as shelf,
        ):
            if shelf is None:
                return 0
            freed = shelf.unlink(payload.name)
            shelf.unlink(manifest.name)
            return freed

    def _rewrite(self, manifest: Path, live: Collection[Path]) -> None:
        """Remove dead lines from a list, as huggingface_hub does when it deletes a repo."""
        text = b"".join(os.fsencode(os.path.relpath(link, self.root)) + b"\n" for link in sorted(live))
        # World-writable, because other users of a shared cache append to it.
        replace_file(manifest, text, mode=0o666, exact_mode=True)

    def _manifest(self, payload: Path) -> list[str] | None:
        raw = _read_regular(_sidecar(payload, ".refs"), _MAX_MANIFEST_BYTES + 1)
        if raw is None or len(raw) > _MAX_MANIFEST_BYTES:
            return None
        return os.fsdecode(raw).split("\n")

    def _canonical(self, path: str | os.PathLike[str]) -> Path | None:
        """Return the path if it is that of a payload of this store, else None."""
        target = os.path.normpath(path)
        folder, name = os.path.split(target)
        store, prefix = os.path.split(folder)
        if store == os.fspath(self.path) and _NAME.fullmatch(name) and prefix == name[:2]:
            return Path(target)
        return None


def _sidecar(payload: Path, ending: str) -> Path:
    return payload.with_name(payload.name + ending)


@contextlib.contextmanager
def _locked(payload: Path) -> Iterator[None]:
    """Hold the payload's lock as huggingface_hub does, with a time-out of half a second.

    The file is created here, because FileLock would follow a planted link and apply the umask.
    """
    path = _sidecar(payload, ".lock")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a regular file")
        with contextlib.suppress(OSError):  # another user's file, whose mode is theirs to choose
            os.fchmod(fd, 0o666)
    finally:
        os.close(fd)
    lock: BaseFileLock = FileLock(path, mode=0o666)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except NotImplementedError:  # a file system without flock: filelock recommends SoftFileLock
        lock = SoftFileLock(f"{path}.soft", mode=0o666)
        lock.acquire(timeout=_LOCK_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _has_type(path: str | os.PathLike[str], kind: Callable[[int], bool]) -> bool:
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False


def _read_regular(path: Path, limit: int) -> bytes | None:
    """Return at most `limit` bytes of a regular file that is not a link, or None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(fd, "rb") as file:
        try:
            return file.read(limit) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        except OSError:
            return None


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _folders(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    return [entry for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]
