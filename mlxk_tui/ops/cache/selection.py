"""The files of a commit that a partial pull selected.

They are stored as `trees/<commit>.selection`, beside huggingface_hub's list of all files, which ignores this
file. Without it, all files of the commit are expected: so a snapshot is either complete, broken, or partial
on purpose.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from mlxk_tui.ops.cache.documents import parse_json
from mlxk_tui.ops.cache.repo import Repo
from mlxk_tui.ops.core.files import read_bytes, replace_file

ENDING = ".selection"
_FORMAT = 1
_MAX_BYTES = 32_000_000


def read_selection(repo: Repo, commit: str) -> frozenset[str] | None:
    """Return the selected paths of a commit; None if all files were requested, or the file is damaged."""
    if commit not in repo.selections:
        return None
    raw = read_bytes(os.path.join(repo.ref.path, "trees", commit + ENDING), _MAX_BYTES)
    value = parse_json(raw).value if raw and len(raw) <= _MAX_BYTES else None
    files = value.get("files") if value is not None and value.get("format_version") == _FORMAT else None
    if not isinstance(files, list) or not all(isinstance(path, str) for path in files):
        return None
    return frozenset(files)


def write_selection(repo_folder: Path, commit: str, paths: Iterable[str]) -> None:
    """Store the selected paths of a commit, atomically.

    Raises:
        OSError: the file system refused.
    """
    folder = repo_folder / "trees"
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"format_version": _FORMAT, "files": sorted(paths)}, indent=1)
    replace_file(folder / (commit + ENDING), content, mode=0o666, scratch=folder)


def remove_selection(repo_folder: Path, commit: str) -> None:
    """Expect all files of a commit again.

    Raises:
        OSError: the file system refused.
    """
    (repo_folder / "trees" / (commit + ENDING)).unlink(missing_ok=True)
