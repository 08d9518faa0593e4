"""The format of `models.lock`: which models a project uses, with the checksum of every file.

    {"format_version": 1, "models": [{"name": "org/model", "revision": null, "commit": "…", "files": [
      {"path": "config.json", "size": 937, "sha256": "…"}]}]}

`revision` is the branch, tag or commit that was named, or null for the selected snapshot. Models are sorted
by name and revision, files by path, so that the same cache always gives the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.files import read_bytes, replace_file
from mlxk_tui.ops.core.os_errors import error_reason, error_type
from mlxk_tui.ops.core.text import printable

FORMAT = 1
_MAX_BYTES = 64_000_000


@dataclass(frozen=True)
class LockedFile:
    """A file in a lock file."""

    path: str
    """Path in the repo, with forward slashes."""
    size: int
    """Bytes."""
    sha256: str
    """Checksum of the content, also for files that the hub stores in git: 64 hex digits."""


@dataclass(frozen=True)
class LockEntry:
    """A model in a lock file."""

    name: str
    revision: str | None
    commit: str
    files: tuple[LockedFile, ...]

    @property
    def spec(self) -> str:
        """`NAME[@REV]`."""
        return self.name if self.revision is None else f"{self.name}@{self.revision}"

    @property
    def bytes_total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    path: str = Field(min_length=1, max_length=1024)
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=96)
    revision: str | None = Field(min_length=1, max_length=200)
    commit: str = Field(pattern="^[0-9a-f]{40}$")
    files: list[_File]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    format_version: int
    models: list[_Model]


def lock_text(entries: Iterable[LockEntry]) -> str:
    """Return the content of a lock file."""
    models = [asdict(entry) for entry in sorted(entries, key=lambda one: (one.name, one.revision or ""))]
    for model in models:
        model["files"] = sorted(model["files"], key=lambda file: file["path"])
    return json.dumps({"format_version": FORMAT, "models": models}, indent=1) + "\n"


def write_lock(path: Path, entries: Iterable[LockEntry]) -> None:
    """Write a lock file atomically.

    Raises:
        OpError: `disk_full`, or `permission_denied` for other errors of the file system.
    """
    try:
        replace_file(path, lock_text(entries), mode=0o666)
    except OSError as error:
        raise OpError(
            error_type(error) or ErrorType.PERMISSION_DENIED,
            f"{printable(str(path))} was not written: {error_reason(error)}.",
        ) from None


def read_lock(path: Path) -> tuple[LockEntry, ...]:
    """Read a lock file.

    Raises:
        OpError: `validation_error` if it does not exist or is not a lock file of this format.
    """
    shown = printable(str(path))
    if not os.path.isfile(path):
        raise OpError(ErrorType.VALIDATION_ERROR, f"There is no lock file at {shown}.")
    raw = read_bytes(os.fspath(path), _MAX_BYTES)
    if raw is None:
        raise OpError(ErrorType.PERMISSION_DENIED, f"{shown} cannot be read.")
    try:
        document = _Document.model_validate_json(raw[: _MAX_BYTES + 1])
    except ValidationError as error:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{shown} is not a valid lock file: {_first_cause(error.errors()[0])}.",
        ) from None
    if document.format_version != FORMAT:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{shown} has format {document.format_version}, which this version cannot read.",
        )
    return tuple(
        LockEntry(
            model.name,
            model.revision,
            model.commit,
            tuple(LockedFile(file.path, file.size, file.sha256) for file in model.files),
        )
        for model in document.models
    )


def _first_cause(error: Any) -> str:
    place = ".".join(map(str, error["loc"]))
    return printable(f"{place}: {error['msg']}" if place else str(error["msg"]))[:200]
