"""Repos of the local hub: commits, branches, tags and access settings."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import yaml

from mlxk_tui.demo.hub.blobs import StoredBlob
from mlxk_tui.demo.hub.replies import revision_not_found

LFS_OVER = 10 << 20
"""Size in bytes above which all files are in LFS, as on the Hub."""

LFS_SUFFIXES = (
    ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".npz", ".onnx", ".h5", ".msgpack", ".zip", ".gz",
    "tokenizer.json",
)  # fmt: skip
_MAX_HEADER_BYTES = 64 << 20
_SHORT_HASH = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True)
class HubTreeEntry:
    """A file of a commit."""

    path: str
    blob: StoredBlob
    lfs: bool

    @property
    def oid(self) -> str:
        """The git object id of the file, or of its pointer file if it is in LFS."""
        return self.blob.pointer_oid if self.lfs else self.blob.git_oid

    @property
    def hashed(self) -> bool:
        """Whether the checksums have been computed."""
        return ("sha256" if self.lfs else "git_oid") in vars(self.blob)

    @property
    def etag(self) -> str:
        """The name of the blob in a cache: the SHA-256 if it is in LFS, else the git object id."""
        return self.blob.sha256 if self.lfs else self.blob.git_oid


@dataclass(frozen=True)
class Commit:
    """One commit of a repo."""

    oid: str
    entries: Mapping[str, HubTreeEntry]
    """Files by path, sorted."""
    parent: Commit | None
    title: str
    author: str
    date: datetime

    def history(self) -> Iterator[Commit]:
        """Yield this commit and its ancestors, newest first."""
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent


@dataclass
class HubRepo:
    """A model repo with its branches, tags and access settings."""

    name: str
    """`org/name`."""
    private: bool = False
    gated: str | bool = False
    """False, `auto` or `manual`."""
    granted: frozenset[str] = frozenset()
    """Users with access to a gated repo."""
    disabled: bool = False
    downloads: int = 0
    likes: int = 0
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    modified: datetime | None = None
    """Value of `last_modified`; None for the date of the newest commit on main."""
    tags_given: tuple[str, ...] = ()
    card_given: Mapping[str, Any] | None = None
    lfs_over: int = LFS_OVER
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """The user or organization."""
        return self.name.rpartition("/")[0]

    @property
    def head(self) -> Commit:
        """The newest commit on main."""
        return self.branches["main"]

    @property
    def last_modified(self) -> datetime:
        """The date of the last change."""
        return self.modified or self.head.date

    @property
    def used_storage(self) -> int:
        """Total size of the files on main, in bytes."""
        return sum(entry.blob.size for entry in self.head.entries.values())

    def in_lfs(self, path: str, size: int, sample: bytes) -> bool:
        """Return whether a file is in LFS: by its suffix, its size, or binary content."""
        return size > 0 and (path.endswith(LFS_SUFFIXES) or size > self.lfs_over or b"\0" in sample)

    def entry(self, path: str, blob: StoredBlob) -> HubTreeEntry:
        """Return a tree entry for a file."""
        return HubTreeEntry(path, blob, self.in_lfs(path, blob.size, blob.read(0, 512)))

    def find(self, revision: str) -> Commit:
        """Return the commit of a branch, tag or (abbreviated) commit hash.

        Raises:
            HubError: 404 RevisionNotFound if it doesn't exist.
        """
        revision = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        named = self.branches.get(revision) or self.tags.get(revision) or self.commits.get(revision)
        if named is not None:
            return named
        if _SHORT_HASH.fullmatch(revision):
            for oid, commit in self.commits.items():
                if oid.startswith(revision):
                    return commit
        raise revision_not_found(revision)

    def add_commit(
        self,
        changes: Mapping[str, HubTreeEntry | None],
        *,
        branch: str = "main",
        title: str = "Update",
        author: str = "tester",
        date: datetime | None = None,
        oid: str | None = None,
    ) -> Commit:
        """Add a commit to a branch, which is created if needed; None deletes a file."""
        parent = self.branches.get(branch)
        entries = dict(parent.entries) if parent is not None else {}
        for path, entry in changes.items():
            if entry is None:
                entries.pop(path, None)
            else:
                entries[path] = entry
        names = [f"{path} {entries[path].blob.key}" for path in sorted(entries)]
        parts = [self.name, parent.oid if parent else "", title, str(len(self.commits)), *names]
        oid = oid or hashlib.sha1("\n".join(parts).encode(), usedforsecurity=False).hexdigest()
        ordered = {path: entries[path] for path in sorted(entries)}
        commit = Commit(oid, ordered, parent, title, author, date or datetime.now(timezone.utc))
        self.commits[oid] = commit
        self.branches[branch] = commit
        return commit

    def card(self, commit: Commit | None = None) -> dict[str, Any]:
        """Return the front matter of README.md; {} if it is missing or not a mapping."""
        if self.card_given is not None:
            return dict(self.card_given)
        entry = (commit or self.head).entries.get("README.md")
        try:
            return front_matter(entry.blob.read().decode("utf-8", "replace")) if entry else {}
        except yaml.YAMLError:
            return {}

    def config(self, commit: Commit | None = None) -> dict[str, Any]:
        """Return the content of config.json; {} if it is missing or not an object."""
        entry = (commit or self.head).entries.get("config.json")
        try:
            document = json.loads(entry.blob.read()) if entry else {}
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def parameters(self, commit: Commit | None = None) -> dict[str, int]:
        """Return the number of parameters by dtype, from the headers of the safetensors files."""
        counts: dict[str, int] = {}
        for path, entry in (commit or self.head).entries.items():
            if path.endswith(".safetensors") and "/" not in path:
                for dtype, count in _tensor_counts(entry.blob):
                    counts[dtype] = counts.get(dtype, 0) + count
        return counts


def front_matter(text: str) -> dict[str, Any]:
    """Return the YAML front matter of a model card; {} if it is missing or not a mapping.

    Raises:
        yaml.YAMLError: it is not valid YAML.
    """
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    document = yaml.safe_load(match[1]) if match else None
    return document if isinstance(document, dict) else {}


def _tensor_counts(blob: StoredBlob) -> Iterator[tuple[str, int]]:
    if blob.size < 8:
        return
    (length,) = struct.unpack("<Q", blob.read(0, 8))
    if length > min(_MAX_HEADER_BYTES, blob.size - 8):
        return
    try:
        header = json.loads(blob.read(8, 8 + length))
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for extent in tensor["shape"]:
                    count *= extent
                yield tensor["dtype"], count
    except (ValueError, KeyError, TypeError, AttributeError):
        return
