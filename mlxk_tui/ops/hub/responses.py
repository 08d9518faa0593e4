"""Parses untrusted responses of the hub's API: checks types, lengths and checksums."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from mlxk_tui.ops.cache.access_record import RepoAccess
from mlxk_tui.ops.cache.names import DEFAULT_ORG, is_valid_repo_name
from mlxk_tui.ops.hub.remote_files import RemoteFile

MAX_FILES = 100_000
"""Largest number of files of a repo that is accepted; the hub advises against more."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 1024
_MAX_SIZE = 2**53
_MAX_TAGS = 200
_MAX_TEXT = 200
_DTYPE_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


class ResponseError(Exception):
    """A response does not have the form that the hub's API promises."""


@dataclass(frozen=True)
class RepoInfo:
    """Metadata of a repo at one revision, without its files."""

    repo: str
    """Full name in the hub's spelling."""
    commit: str
    """40 hex digits."""
    license: str | None = None
    gated: bool = False
    private: bool = False
    disabled: bool = False
    last_modified: datetime | None = None
    """In UTC."""
    tags: tuple[str, ...] = ()
    access: RepoAccess | None = None
    """`gated` and `private`, if the response states both."""


@dataclass(frozen=True)
class TreeEntry:
    """A file of a commit, with the fields that huggingface_hub stores in `trees/<commit>.json`."""

    path: str
    size: int
    blob_id: str
    """Git hash of the file, or of its LFS pointer."""
    lfs_sha256: str | None = None
    xet_hash: str | None = None

    @property
    def remote(self) -> RemoteFile:
        """The file in the downloader's form."""
        xet = self.xet_hash is not None
        if self.lfs_sha256 is not None:
            return RemoteFile(self.path, self.size, self.lfs_sha256, "sha256", xet)
        return RemoteFile(self.path, self.size, self.blob_id, "git-sha1", xet)

    @property
    def etag(self) -> str:
        """Checksum of the content, which is also the name of the blob."""
        return self.lfs_sha256 or self.blob_id


@dataclass(frozen=True)
class HubModel:
    """A model found by a search."""

    name: str
    size_bytes: int | None = None
    downloads: int | None = None
    likes: int | None = None
    last_modified: datetime | None = None
    mlx: bool = False
    task: str | None = None
    license: str | None = None
    gated: bool = False
    tags: tuple[str, ...] = field(default=())


def parse_repo_info(response: Any, requested: str) -> RepoInfo:
    """Parse the response of `/api/models/NAME/revision/REV`.

    Args:
        response: the parsed JSON.
        requested: the requested name. The hub's spelling of it is used, but not another name (of a renamed
            repo), because huggingface_hub caches such repos under the requested name.

    Raises:
        ResponseError: the response is invalid.
    """
    if not isinstance(response, dict):
        raise ResponseError("not an object")
    commit = response.get("sha")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ResponseError("no commit")
    name = response.get("id")
    same = isinstance(name, str) and is_valid_repo_name(name) and name.casefold() == requested.casefold()
    tags = _tags(response.get("tags"))
    return RepoInfo(
        repo=str(name) if same else requested,
        commit=commit,
        license=_license(response.get("cardData"), tags),
        gated=_is_gated(response.get("gated")),
        private=response.get("private") is True,
        disabled=response.get("disabled") is True,
        last_modified=_parse_time(response.get("lastModified")),
        tags=tags,
        access=_access(response),
    )


def parse_tree(items: Iterable[Any]) -> tuple[TreeEntry, ...]:
    """Parse the file list of a commit, sorted by path.

    Raises:
        ResponseError: an item is invalid, a path occurs twice, or there are too many files.
    """
    found: dict[str, TreeEntry] = {}
    for item in items:
        if not isinstance(item, dict):
            raise ResponseError("an item is not an object")
        if item.get("type") != "file":
            continue
        entry = _parse_tree_entry(item)
        if entry.path in found:
            raise ResponseError("a path occurs twice")
        if len(found) >= MAX_FILES:
            raise ResponseError("too many files")
        found[entry.path] = entry
    return tuple(found[path] for path in sorted(found))


def _parse_tree_entry(item: Mapping[str, Any]) -> TreeEntry:
    path, oid, lfs, xet = item.get("path"), item.get("oid"), item.get("lfs"), item.get("xetHash")
    if not isinstance(path, str) or not 0 < len(path) <= _MAX_PATH:
        raise ResponseError("a file without a path")
    if not isinstance(oid, str) or not _COMMIT.fullmatch(oid):
        raise ResponseError("a file without a checksum")
    xet_hash = xet if isinstance(xet, str) and _SHA256.fullmatch(xet) else None
    if lfs is None:
        return TreeEntry(path, _file_size(item.get("size")), oid, xet_hash=xet_hash)
    sha256 = lfs.get("oid") if isinstance(lfs, dict) else None
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ResponseError("an LFS file without a checksum")
    return TreeEntry(path, _file_size(lfs.get("size")), oid, sha256, xet_hash)


def parse_hub_model(item: Any) -> HubModel | None:
    """Parse one search result; return None for an invalid one, so that the others stay usable."""
    name = item.get("id") if isinstance(item, dict) else None
    if not isinstance(name, str) or not is_valid_repo_name(name):
        return None
    tags = _tags(item.get("tags"))
    library = item.get("library_name")
    return HubModel(
        name=name,
        size_bytes=_weights_size(item.get("safetensors")) or _count(item.get("usedStorage")) or None,
        downloads=_count(item.get("downloads")),
        likes=_count(item.get("likes")),
        last_modified=_parse_time(item.get("lastModified")),
        mlx="mlx" in tags or library == "mlx" or name.startswith(f"{DEFAULT_ORG}/"),
        task=_short_text(item.get("pipeline_tag")),
        license=_license(item.get("cardData"), tags),
        gated=_is_gated(item.get("gated")),
        tags=tags,
    )


def _file_size(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_SIZE:
        raise ResponseError("a file without a size")
    return value


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_SIZE else None


def _short_text(value: Any) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value.strip() else None


def _tags(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(tag[:_MAX_TEXT] for tag in value[:_MAX_TAGS] if isinstance(tag, str))


def _license(card: Any, tags: Iterable[str]) -> str | None:
    """Return the license in the model card: an identifier, the first if there are several."""
    stated = card.get("license") if isinstance(card, dict) else None
    if isinstance(stated, list) and stated:
        stated = stated[0]
    if text := _short_text(stated):
        return text
    return next((_short_text(tag.partition(":")[2]) for tag in tags if tag.startswith("license:")), None)


def _access(response: Mapping[str, Any]) -> RepoAccess | None:
    gated, private = response.get("gated"), response.get("private")
    if not isinstance(gated, (bool, str)) or not isinstance(private, bool):
        return None
    return RepoAccess(_is_gated(gated), private)


def _is_gated(value: Any) -> bool:
    """Return whether a repo is gated: the hub reports false, `auto` or `manual`."""
    return value is True or (isinstance(value, str) and value.lower() not in {"", "false"})


def _parse_time(value: Any) -> datetime | None:
    """Parse a UTC time such as `2025-08-30T12:00:00.000Z`, truncated to seconds."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _weights_size(value: Any) -> int | None:
    """Return the bytes of the safetensors files, computed from the number of elements per dtype."""
    counts = value.get("parameters") if isinstance(value, dict) else None
    if not isinstance(counts, dict) or not counts:
        return None
    bits = 0
    for dtype, count in counts.items():
        number = _count(count)
        if number is None or dtype not in _DTYPE_BITS:
            return None
        bits += number * _DTYPE_BITS[dtype]
    return bits // 8
