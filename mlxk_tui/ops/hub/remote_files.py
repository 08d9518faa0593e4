"""What lies on a hub: the files of one commit, each with the checksum that its bytes must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["sha256", "git-sha1"]
"""How an etag is made: sha256 of the bytes (LFS), or sha1 of `blob <length>`, NUL and the bytes (git)."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a commit, as the hub's tree names it; nothing in it is trusted yet."""

    path: str
    """Path inside the repo, with forward slashes."""
    size: int
    """Bytes."""
    etag: str
    """Checksum in lower-case hex digits and name of the blob: 64 digits (sha256) or 40 (git-sha1)."""
    algorithm: Algorithm
    xet: bool = False
    """Whether the hub keeps the bytes in Xet storage; plain HTTP serves them all the same."""
