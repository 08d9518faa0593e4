"""Moves a complete repo into a cache in huggingface_hub's layout, atomically."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from mlxk_tui.demo.layout import git_sha1, lfs_pointer

_LFS = (".safetensors", "tokenizer.json")
"""Files whose blobs are named by their sha256; other blobs have git's hash."""


def folder_of(root: Path, repo: str) -> Path:
    """Return the folder of a repo in the cache `root`."""
    return root / f"models--{repo.replace('/', '--')}"


def snapshot_of(root: Path, repo: str, revision: str) -> Path | None:
    """Return the folder of the snapshot, or None if it does not exist or files are missing.

    Repos are moved into the cache when complete; this finds files that were deleted later.
    """
    folder = folder_of(root, repo)
    snapshot = folder / "snapshots" / revision
    try:
        if (folder / "refs" / "main").read_text() != revision:
            return None
        listed = json.loads((folder / "trees" / f"{revision}.json").read_text())["files"]
        for name, entry in listed.items():
            if (snapshot / name).stat().st_size != entry["size"]:
                return None
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return snapshot


def install(root: Path, repo: str, revision: str, files: Path, scratch: Path) -> Path:
    """Move the files of a folder into the cache as a repo with one revision; return the snapshot's folder.

    An existing repo with this name is replaced.
    """
    made = scratch / "repo"
    snapshot = made / "snapshots" / revision
    for folder in (made / "blobs", made / "refs", made / "trees", snapshot):
        folder.mkdir(parents=True)
    listed = {}
    for path in sorted(files.iterdir()):
        blob = _blob_name(path)
        listed[path.name] = _entry(blob, path.stat().st_size)
        os.replace(path, made / "blobs" / blob)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", blob))
    (made / "refs" / "main").write_text(revision)
    (made / "trees" / f"{revision}.json").write_text(json.dumps({"format_version": 1, "files": listed}))
    final = folder_of(root, repo)
    if final.exists():
        os.replace(final, scratch / "older")
    os.replace(made, final)
    shutil.rmtree(scratch / "older", ignore_errors=True)
    return final / "snapshots" / revision


def _entry(blob: str, size: int) -> dict[str, Any]:
    """Return the entry of a file in huggingface_hub's tree; a sha256 means the file is in LFS."""
    if len(blob) != 64:
        return {"size": size, "blob_id": blob}
    pointer = git_sha1(lfs_pointer(blob, size))
    return {"size": size, "blob_id": pointer, "lfs_sha256": blob, "lfs_size": size}


def _blob_name(path: Path) -> str:
    digest = hashlib.sha256()
    if not path.name.endswith(_LFS):
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
