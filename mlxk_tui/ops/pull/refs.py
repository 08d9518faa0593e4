"""What a pull writes beside the files: `trees/<commit>.json` and `refs/<name>`, as huggingface_hub does.

Both appear at once or not at all, and outlive a power failure once they are there. The tree comes before
the first file, so that a snapshot that is not complete is known to be so; the ref comes after the last.
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
"""The signature that the Cache Directory Tagging Specification sets, and a line for whoever looks."""


def write_tree(repo_folder: Path, commit: str, entries: Iterable[TreeEntry]) -> None:
    """Remember the files of a commit, in the format of huggingface_hub 2.4; nothing to do when it is there.

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
    """Let a branch or tag name a commit; a full commit needs no ref.

    Raises:
        OSError: the file system refused, such as where another ref's name is a part of this one.
    """
    path = repo_folder.joinpath("refs", *ref.split("/"))
    if ref != commit and _text(path) != commit:
        # Not in refs, where what a kill leaves would be taken for a ref.
        _write(path, commit, repo_folder / "trees")


def mark_cache(root: Path) -> None:
    """Make the cache folder, with the tag that lets backup programs leave it out."""
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
