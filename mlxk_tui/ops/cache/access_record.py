"""Records at a pull whether a repo is gated or private on the hub, so that it is not shared by mistake.

huggingface_hub's cache does not record this. The file is in the repo's folder, beside `trees/`; its name is
hidden, so that no other program takes it for a part of the repo. It goes with the model.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.ops.core.files import read_bytes, replace_file

ACCESS_FILE = ".mlxk-access.json"
"""Name of the record in a repo's folder."""
_FORMAT = 1
_MAX_BYTES = 4096


@dataclass(frozen=True)
class RepoAccess:
    """Who may read a repo on the hub, as the hub stated it."""

    gated: bool
    """Whether the authors grant access on request."""
    private: bool
    """Whether only members can see it."""

    @property
    def public(self) -> bool:
        """Whether everybody may read its files."""
        return not (self.gated or self.private)


def read_access(repo_folder: str | os.PathLike[str]) -> RepoAccess | None:
    """Return the record of a repo, or None if there is no valid one; links are not followed."""
    path = os.path.join(repo_folder, ACCESS_FILE)
    raw = None if os.path.islink(path) else read_bytes(path, _MAX_BYTES)
    if raw is None or len(raw) > _MAX_BYTES:
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.get("format_version") != _FORMAT:
        return None
    gated, private = value.get("gated"), value.get("private")
    if not isinstance(gated, bool) or not isinstance(private, bool):
        return None
    return RepoAccess(gated, private)


def write_access(repo_folder: Path, access: RepoAccess) -> None:
    """Write the record of a repo, unless it is up to date.

    Raises:
        OSError: the file system refused.
    """
    if read_access(repo_folder) != access:
        content = {"format_version": _FORMAT, "gated": access.gated, "private": access.private}
        scratch = repo_folder / "trees"  # as for the other files that a pull writes
        scratch.mkdir(parents=True, exist_ok=True)
        replace_file(repo_folder / ACCESS_FILE, json.dumps(content) + "\n", mode=0o666, scratch=scratch)
