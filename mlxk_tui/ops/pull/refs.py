"""Writes `trees/<commit>.json` and `refs/<name>` of a pull, as huggingface_hub does.

Both are written atomically and durably. The file list is written before the first file, so that an
incomplete snapshot is recognized; the ref is written after the last one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from mlxk_tui.ops.core.files import replace_file
from mlxk_tui.ops.hub.responses import TreeEntry

_FORMAT = 1
_TAG = "CACHEDIR.TAG"
_TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n# Models of the Hugging Face hub, to be had again.\n"
)
"""The signature of the Cache Directory Tagging Specification, and a comment for people."""


def write_tree(repo_folder: Path, commit: str, entries: Iterable[TreeEntry]) -> None:
    """Write the file list of a commit in the format of huggingface_hub 2.4, unless it is up to date.

    Raises:
        OSError: the file system refused.
    """
    path = repo_folder / "trees" / f"{commit}.json"
    files: dict[str, dict[str, object]] = {}
    for entry in entries:
        facts: dict[str, object] = {"size": entry.size, "blob_id": entry.blob_id}
        if entry.lfs_sha256 is not None:
            facts.update(lfs_sha256=entry.lfs_sha256, lfs_size=entry.size)
        if entry.xet_hash is not None:
            facts["xet_hash"] = entry.xet_hash
        files[entry.path] = facts
    content = json.dumps({"format_version": _FORMAT, "files": dict(sorted(files.items()))}, indent=1)
    if _text(path) != content:
        _write(path, content, path.parent)


def write_ref(repo_folder: Path, ref: str, commit: str) -> None:
    """Write a ref for a branch or tag; a full commit needs none.

    Raises:
        OSError: the file system refused, such as when the name of another ref is a prefix of this one.
    """
    path = repo_folder.joinpath("refs", *ref.split("/"))
    if ref != commit and _text(path) != commit:
        # The temporary file is not in refs, where a leftover would count as a ref.
        _write(path, commit, repo_folder / "trees")


def mark_cache(root: Path) -> None:
    """Create the cache folder, with the tag by which backup programs skip it."""
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError), open(root / _TAG, "x", encoding="utf-8") as stream:
        stream.write(_TAG_TEXT)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, content: str, scratch: Path) -> None:
    for folder in (path.parent, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, content, mode=0o666, scratch=scratch)
