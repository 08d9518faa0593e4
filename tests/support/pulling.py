"""Helpers for tests of pulls: a model, and the result according to huggingface_hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import scan_cache_dir, snapshot_download

from mlxk_tui.demo.hub import LocalHub
from tests.support.hf_cache import model_files

NAME = "mlx-community/Tiny-4bit"
FILES = {**model_files(), "sub/notes.txt": b"notes\n"}
WEIGHTS = "model.safetensors"


def content_of(cache: Path, name: str = NAME, revision: str = "main") -> dict[str, bytes]:
    """Return the files of a cached revision, as found offline by huggingface_hub."""
    folder = Path(snapshot_download(name, cache_dir=cache, revision=revision, local_files_only=True))
    assert not any(str(warning) for warning in scan_cache_dir(cache).warnings if "/.mlxk" not in str(warning))
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def blob_of(cache: Path, commit: str, file: str = WEIGHTS, name: str = NAME) -> Path:
    """Return the blob of a snapshot's file, and make it writable."""
    blob = (cache / f"models--{name.replace('/', '--')}" / "snapshots" / commit / file).resolve()
    blob.chmod(0o644)
    return blob


def sent(hub: LocalHub) -> int:
    """Return the bytes of files that a local hub has sent since its request log was cleared."""
    return hub.requests.bytes_sent("*/resolve*") + hub.requests.bytes_sent(origin="cdn")
