"""The tiny model that ships with the app: its files, its example questions, and its installation in a cache.

scripts/train_tiny_model.py trains it. This module doesn't import MLX.
"""

from __future__ import annotations

from pathlib import Path

from mlxk_tui.demo.layout import RepoLayout, commit_hash, etag
from mlxk_tui.ops.cache.access_record import RepoAccess, write_access

NAME = "mlxk-tui/tiny-demo"
"""Its repo name."""

SUGGESTIONS: tuple[str, ...] = (
    "What do the panes do?",
    "What does verify do?",
    "Why does a model not run here?",
    "Show me Python code",
    "Tell me a tip",
    "Give me a tour of the app",
)
"""Questions that it can answer, for an empty chat."""


def folder() -> Path:
    """Return the folder with its files, in a checkout or an installed package."""
    return Path(__file__).resolve().parent / "tiny"


def install(hub: Path) -> Path:
    """Write the model into the cache folder `hub`, like a finished download, and return its snapshot.

    The commit hash is derived from the files, so it is the same everywhere. An existing snapshot is kept.
    """
    files = {path.name: path.read_bytes() for path in sorted(folder().iterdir()) if path.is_file()}
    revision = commit_hash(NAME, *(f"{name} {etag(name, content)}" for name, content in files.items()))
    repo = RepoLayout(hub, NAME)
    snapshot = repo.path / "snapshots" / revision
    if not snapshot.exists():
        repo.add_snapshot(revision, files)
    repo.set_ref("main", revision)
    repo.add_locks()
    write_access(repo.path, RepoAccess(gated=False, private=False))
    return snapshot
