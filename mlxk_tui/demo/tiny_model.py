"""The tiny real model that ships with the app: where it lies, what it knows, and how it gets into a cache.

It is made by scripts/train_tiny_model.py. Nothing here imports MLX.
"""

from __future__ import annotations

from pathlib import Path

from mlxk_tui.demo.layout import RepoLayout, commit, etag

NAME = "mlxk-tui/tiny-demo"
"""Its repo name in a cache."""

SUGGESTIONS: tuple[str, ...] = (
    "What do the panes do?",
    "What does verify do?",
    "Why does a model not run here?",
    "Show me Python code",
    "Tell me a tip",
    "Give me a tour of the app",
)
"""Questions that it can answer, for the empty state of a chat."""


def folder() -> Path:
    """Return the folder of its files (Hugging Face layout), in a checkout and in an installed package."""
    return Path(__file__).resolve().parent / "tiny"


def install(hub: Path) -> Path:
    """Write it into the hub folder `hub` as a finished download and return its snapshot.

    The revision follows from the files, so the same model has the same commit hash everywhere. A
    revision that is there already is kept as it is.
    """
    files = {path.name: path.read_bytes() for path in sorted(folder().iterdir()) if path.is_file()}
    revision = commit(NAME, *(f"{name} {etag(name, content)}" for name, content in files.items()))
    repo = RepoLayout(hub, NAME)
    snapshot = repo.path / "snapshots" / revision
    if not snapshot.exists():
        repo.add_snapshot(revision, files)
    repo.set_ref("main", revision)
    repo.add_locks()
    return snapshot
