"""File contents of the local hub: in memory, on disk, or made up while they are sent.

A blob knows its size, its two names (git's sha1 and, for LFS, the sha256) and can hand out any range of
itself without holding the rest, so that a repo of a gigabyte costs neither memory nor disk.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlxk_tui.demo.layout import git_sha1, lfs_pointer
from mlxk_tui.demo.weights import Payload

_BLOCK = 1 << 20
_PIECE = 1 << 20
_STAMP = 16


@dataclass(frozen=True)
class Generated:
    """Bytes that follow from size and seed: they look random, and no two blocks of them are the same.

    Every mebibyte is one random block with its own number written over its first 16 bytes, so a range
    put in the wrong place changes the checksum. Making them is a matter of copying.
    """

    size: int
    """Bytes, head included."""
    seed: int = 0
    head: bytes = field(default=b"", repr=False)
    """What the file begins with, such as the header of a safetensors file."""


Content = bytes | Path | Generated | Payload
"""What a file of a repo may be given as."""


class StoredBlob(ABC):
    """One file's content."""

    size: int
    """Bytes."""
    path: Path | None = None
    """The file that holds exactly these bytes, where there is one."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What tells this content from another, without reading it all."""

    @abstractmethod
    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Yield the bytes from `start` up to `stop`, a mebibyte or less at a time."""

    @functools.cached_property
    def sha256(self) -> str:
        """The LFS name, in hex; worked out once, at about a gigabyte a second."""
        digest = hashlib.sha256()
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    @functools.cached_property
    def git_oid(self) -> str:
        """The name that git gives to these bytes: sha1 of `blob <length>`, a zero byte, the bytes."""
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        for piece in self.pieces(0, self.size):
            digest.update(piece)
        return digest.hexdigest()

    @functools.cached_property
    def pointer(self) -> bytes:
        """The text that git holds in place of the file when it is in LFS."""
        return lfs_pointer(self.sha256, self.size)

    @functools.cached_property
    def pointer_oid(self) -> str:
        """The name that git gives to the pointer."""
        return git_sha1(self.pointer)

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes from `start` up to `stop`."""
        return b"".join(self.pieces(start, self.size if stop is None else min(stop, self.size)))


class BytesBlob(StoredBlob):
    """A small file, in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    @property
    def key(self) -> str:
        """Git's own name of the bytes, which are short."""
        return self.git_oid

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Slice the bytes."""
        view = memoryview(self.data)
        for at in range(start, stop, _PIECE):
            yield view[at : min(at + _PIECE, stop)]


class PathBlob(StoredBlob):
    """A file on disk, which nobody changes while it is served."""

    def __init__(self, path: Path, *, sha256: str | None = None) -> None:
        self.path = path
        self.size = path.stat().st_size
        if sha256 is not None:
            self.sha256 = sha256

    @property
    def key(self) -> str:
        """Where the file lies, its size and its age."""
        status = os.stat(self.path or "")
        return f"{self.path}-{self.size}-{status.st_mtime_ns}"

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Read the file."""
        with open(self.path or "", "rb") as file:
            file.seek(start)
            left = stop - start
            while left > 0 and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
                yield piece


class GeneratedBlob(StoredBlob):
    """A head and made-up bytes behind it."""

    def __init__(self, content: Generated) -> None:
        self.content = content
        self.size = content.size

    @property
    def key(self) -> str:
        """What the bytes are made from."""
        head = hashlib.sha256(self.content.head).hexdigest()[:16]
        return f"generated-{self.size}-{self.content.seed}-{head}"

    @functools.cached_property
    def _block(self) -> memoryview:
        return memoryview(random.Random(self.content.seed).randbytes(_BLOCK))  # noqa: S311 - filler

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """Make the bytes."""
        head = memoryview(self.content.head)
        if start < len(head):
            yield head[start : min(stop, len(head))]
        at = max(start, len(head))
        while at < stop:
            number, within = divmod(at, _BLOCK)
            end = min(_BLOCK, within + stop - at)
            if within < _STAMP:
                stamp = struct.pack("<QQ", number, self.content.seed & (2**64 - 1))
                yield stamp[within : min(_STAMP, end)]
                at += min(_STAMP, end) - within
            else:
                yield self._block[within:end]
                at += end - within


class PayloadBlob(StoredBlob):
    """A file of the sample: a head and zeros, with a checksum that is known beforehand."""

    def __init__(self, payload: Payload) -> None:
        self.payload = payload
        self.size = payload.size

    @property
    def key(self) -> str:
        """What tells the sample's files apart."""
        return self.payload.key

    @functools.cached_property
    def sha256(self) -> str:
        """The checksum from the sample's list, or worked out."""
        try:
            return self.payload.sha256
        except KeyError:
            return self.payload.hashed()

    def pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The head, then zeros."""
        head = memoryview(self.payload.head)
        if start < len(head):
            yield head[start : min(stop, len(head))]
        zeros = memoryview(bytes(min(_PIECE, self.size)))
        for at in range(max(start, len(head)), stop, _PIECE):
            yield zeros[: min(_PIECE, stop - at)]


def make_blob(content: Content | StoredBlob) -> StoredBlob:
    """Return the blob for a content as it was given."""
    if isinstance(content, StoredBlob):
        return content
    if isinstance(content, Generated):
        return GeneratedBlob(content)
    if isinstance(content, Payload):
        return PayloadBlob(content)
    if isinstance(content, Path):
        return PathBlob(content)
    return BytesBlob(content)
