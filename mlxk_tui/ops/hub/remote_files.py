"""Files on a hub, with the checksums that their content must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["sha256", "git-sha1"]
"""Algorithm of an etag: sha256 of the content (LFS), or sha1 of `blob <length>`, NUL, content (git)."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a commit, from the hub's file list; untrusted."""

    path: str
    """Path in the repo, with forward slashes."""
    size: int
    """Bytes."""
    etag: str
    """Checksum in lower-case hex digits, which is also the blob's name: 64 (sha256) or 40 (git-sha1)."""
    algorithm: Algorithm
    xet: bool = False
    """Whether the hub stores the file in Xet storage; plain HTTP serves it as well."""
