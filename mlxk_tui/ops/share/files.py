"""The files of a snapshot with the checksums that the hub states for them.

A blob is named by its etag, so the checksums are known without reading it. A file without such a blob (on
systems without links, or linked by another program) is hashed once.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.documents import Documents
from mlxk_tui.ops.cache.repo import Repo, Snapshot, SnapshotFile
from mlxk_tui.ops.health.integrity import check_integrity

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_CHUNK = 4_194_304
_MAX_GIT_BYTES = 10_000_000
"""Size from which the hub keeps every file as an LFS object."""


@dataclass(frozen=True)
class SharedFile:
    """A file of a shared snapshot."""

    path: str
    """Path in the repo, with forward slashes."""
    size: int
    """Bytes."""
    oid: str
    """Git hash of the file, or of its LFS pointer: 40 hex digits."""
    sha256: str | None
    """Checksum of an LFS file; None for a file that is stored in git."""
    target: str
    """Path of the regular file with the bytes."""

    @property
    def etag(self) -> str:
        """Checksum of the content, as the hub's etag."""
        return self.sha256 or self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the LFS pointer."""
        return len(_lfs_pointer(self.sha256 or "", self.size))


def find_problem(repo: Repo, snapshot: Snapshot | None, documents: Documents) -> str | None:
    """Return why a snapshot is neither shared nor locked, as a sentence; None if nothing is wrong.

    A partial pull is fine as long as the model can run without the files that it left out.
    """
    error = check_integrity(repo, snapshot, documents).first_error
    if error is not None:
        return error.message
    return None if snapshot is not None and snapshot.hash else "Its snapshot is not named by a commit."


def list_shared_files(snapshot: Snapshot) -> tuple[SharedFile, ...]:
    """Return the files of a snapshot. Blocking: reads files whose blob is not named by a checksum.

    Files without bytes, and those whose name is not valid Unicode, are left out.

    Raises:
        OSError: a file cannot be read.
    """
    return tuple(
        _to_shared(file, file.target, file.size)
        for file in snapshot.files
        if file.target is not None and file.size is not None and _is_unicode(file.name)
    )


def _to_shared(file: SnapshotFile, target: str, size: int) -> SharedFile:
    etag = file.etag or ""
    if _SHA1.fullmatch(etag):
        return SharedFile(file.name, size, etag, None, target)
    if not _SHA256.fullmatch(etag):
        if size < _MAX_GIT_BYTES:
            return SharedFile(file.name, size, hash_file(target, "sha1", b"blob %d\0" % size), None, target)
        etag = hash_file(target, "sha256")
    pointer = _lfs_pointer(etag, size)
    oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
    return SharedFile(file.name, size, oid, etag, target)


def _lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the text that git stores for an LFS file (Git LFS specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def hash_file(
    path: str, algorithm: str, prefix: bytes = b"", check: Callable[[int], None] | None = None
) -> str:
    """Return the checksum of a file in hex digits. Blocking.

    Args:
        path: the file.
        algorithm: a name in hashlib.
        prefix: hashed before the content.
        check: called with the number of bytes after each chunk of 4 MiB; it may raise to stop.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.new(algorithm, prefix, usedforsecurity=False)
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            if check is not None:
                check(len(chunk))
    return digest.hexdigest()


def open_shared(cache: Cache, file: SharedFile) -> BinaryIO:
    """Open a shared file for reading, unbuffered; checked again, because the cache may have changed.

    Raises:
        OSError: the file is gone, has another size, is not a regular file, or is outside the cache.
    """
    target = os.path.realpath(file.target, strict=True)
    if not is_inside(cache, target):
        raise PermissionError("the file is outside the cache")
    fd = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    stream = open(fd, "rb", buffering=0)  # noqa: SIM115 - returned
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_size != file.size:
        stream.close()
        raise OSError("the file has changed")
    return stream


def is_inside(cache: Cache, path: str) -> bool:
    """Return whether a path without links is inside the cache folder."""
    return path.startswith(os.path.join(os.path.realpath(cache.root), ""))
