"""Validates file lists of a hub: rejects paths outside the snapshot and paths that collide."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from urllib.parse import urlsplit

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.options import DownloadSource
from mlxk_tui.ops.hub.remote_files import RemoteFile

_ETAG = {"sha256": re.compile(r"[0-9a-f]{64}"), "git-sha1": re.compile(r"[0-9a-f]{40}")}
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\\\\\ud800-\udfff]")
_MAX_FILES = 50_000
_MAX_PART_BYTES = 255
_MAX_PATH_BYTES = 1000
_MAX_PARTS = 16
"""The same limit as for scanning a repo."""
_MAX_BYTES = 1 << 50


def check_source(source: DownloadSource) -> None:
    """Check the address, the names and the token of a source.

    Raises:
        OpError: `validation_error`.
    """
    if not _is_address(source.endpoint):
        raise _validation_error(f"'{printable(source.endpoint)}' is not a hub address. Check HF_ENDPOINT.")
    if not _REPO.fullmatch(source.repo) or ".." in source.repo or not _COMMIT.fullmatch(source.commit):
        raise _validation_error(
            f"'{printable(source.repo)}@{printable(source.commit)}' is not a commit of a repo."
        )
    if source.token is not None and not (source.token.isascii() and source.token.isprintable()):
        raise _validation_error("The token contains invalid characters. Check HF_TOKEN.")


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def check_files(files: Sequence[RemoteFile]) -> None:
    """Check that a list of files can be stored safely in one folder.

    Paths that differ only in case or Unicode normalization would be one file on many systems.

    Raises:
        OpError: `validation_error`; nothing was written.
    """
    if len(files) > _MAX_FILES:
        raise _validation_error(f"The repo has more than {_MAX_FILES:,} files. Nothing was downloaded.")
    sizes: dict[str, int] = {}
    folders: set[str] = set()
    file_keys: set[str] = set()
    total = 0
    for file in files:
        _check_path(file.path)
        pattern = _ETAG.get(file.algorithm)
        if pattern is None or not pattern.fullmatch(file.etag):
            raise _file_error(file.path, "has no usable checksum")
        if not 0 <= file.size <= _MAX_BYTES or sizes.setdefault(file.etag, file.size) != file.size:
            raise _file_error(file.path, "has an impossible size")
        total += file.size
        key = unicodedata.normalize("NFC", file.path).casefold()
        if key in file_keys or key in folders:
            raise _file_error(file.path, "has the same name as another file, except for case")
        file_keys.add(key)
        while (cut := key.rfind("/")) >= 0:
            key = key[:cut]
            if key in file_keys:
                raise _file_error(file.path, "is in a folder that is also a file")
            if key in folders:
                break
            folders.add(key)
    if total > _MAX_BYTES:
        raise _validation_error("The total size of the repo is impossible. Nothing was downloaded.")


def _check_path(path: str) -> None:
    if _CONTROL.search(path):
        raise _file_error(path, "has control characters or a backslash in its name")
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise _file_error(path, "has a path that leaves the repo")
    if (
        len(parts) > _MAX_PARTS
        or len(path.encode()) > _MAX_PATH_BYTES
        or any(len(part.encode()) > _MAX_PART_BYTES for part in parts)
    ):
        raise _file_error(path, "has a path that is too long")


def _file_error(path: str, why: str) -> OpError:
    shown = printable(path)
    shown = shown if len(shown) <= 120 else f"{shown[:117]}..."
    return _validation_error(f"The repo was rejected: its file '{shown}' {why}. Nothing was downloaded.")


def _validation_error(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)
