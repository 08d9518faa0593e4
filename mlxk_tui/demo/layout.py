"""Writes repos in the cache layout of huggingface_hub 2: blobs, snapshots of relative links, refs, trees."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from mlxk_tui.demo.weights import Payload

Content = bytes | Payload
"""The content of a file: bytes, or a sparse payload for weights."""

SHARED_MARKER = ".huggingface-shared-blobs"
"""File that marks `<cache>/blobs` as a shared store of huggingface_hub 2; it contains a version number."""

_LFS_ENDINGS = (".safetensors", ".gguf", ".bin", "tokenizer.json")


def git_sha1(data: bytes) -> str:
    """Return the git object id of a file; it is the blob name of files that aren't in LFS."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def etag(name: str, content: Content) -> str:
    """Return the blob name of a file: SHA-256 if it is in LFS, else the git object id."""
    if isinstance(content, Payload):
        return content.sha256
    return hashlib.sha256(content).hexdigest() if name.endswith(_LFS_ENDINGS) else git_sha1(content)


def commit_hash(*parts: str) -> str:
    """Return a deterministic commit hash for these strings."""
    return hashlib.sha1("\0".join(parts).encode(), usedforsecurity=False).hexdigest()


class RepoLayout:
    """Writes one `models--*` folder of a cache: blobs, refs, snapshots and trees."""

    def __init__(self, hub: Path, name: str) -> None:
        self.hub = hub
        self.name = name
        self.path = hub / f"models--{name.replace('/', '--')}"
        self.blobs = self.path / "blobs"
        for folder in ("blobs", "refs", "snapshots"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)

    def add_snapshot(
        self,
        revision: str,
        files: Mapping[str, Content],
        *,
        absent: Iterable[str] = (),
        shared: Iterable[str] = (),
        tree: bool = True,
    ) -> Path:
        """Write the blobs and links of one revision and return the snapshot folder.

        Args:
            revision: the commit hash.
            files: content of all files of the revision, by path with forward slashes.
            absent: paths of files that aren't downloaded.
            shared: paths of files that are in the cache's shared store.
            tree: whether to write `trees/<revision>.json`, which lists `files`.
        """
        snapshot = self.path / "snapshots" / revision
        snapshot.mkdir()
        left_out, in_store = set(absent), set(shared)
        etags = {name: etag(name, content) for name, content in files.items()}
        for name, content in files.items():
            if name in left_out:
                continue
            blob = self.add_blob(etags[name], content, shared=name in in_store)
            self.link(snapshot / PurePosixPath(name), blob)
        if tree:
            self._add_tree(revision, files, etags)
        return snapshot

    def add_blob(self, name: str, content: Content, *, shared: bool = False) -> Path:
        """Write `blobs/<name>` unless it exists, as a file or as a link to the shared store."""
        blob = self.blobs / name
        if shared:
            self._share(blob, content)
        elif not blob.exists():
            _write(blob, content)
        return blob

    def link(self, path: Path, blob: Path) -> None:
        """Create a relative symlink to a blob."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(blob, path.parent))

    def set_ref(self, name: str, revision: str) -> None:
        """Set the branch or tag `name` to `revision`."""
        ref = self.path / "refs" / PurePosixPath(name)
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(revision)

    def add_locks(self) -> None:
        """Create the empty lock files that downloads leave."""
        folder = self.hub / ".locks" / self.path.name
        folder.mkdir(parents=True, exist_ok=True)
        for blob in self.blobs.iterdir():
            if not blob.name.endswith(".incomplete"):
                (folder / f"{blob.name}.lock").touch()

    def set_times(self, seconds: float, only: Callable[[Path], bool] = lambda path: True) -> None:
        """Set the modification time (seconds since the epoch) of all files, folders and links in the repo."""
        for folder, folders, names in os.walk(self.path, topdown=False):
            for name in [*names, *folders]:
                path = Path(folder, name)
                if only(path):
                    os.utime(path, (seconds, seconds), follow_symlinks=False)
        os.utime(self.path, (seconds, seconds))

    def _add_tree(self, revision: str, files: Mapping[str, Content], etags: Mapping[str, str]) -> None:
        entries: dict[str, dict[str, str | int]] = {}
        for name in sorted(files):
            content = files[name]
            blob, size = etags[name], content.size if isinstance(content, Payload) else len(content)
            if len(blob) == 64:
                pointer = lfs_pointer(blob, size)
                entries[name] = {
                    "size": size,
                    "blob_id": git_sha1(pointer),
                    "lfs_sha256": blob,
                    "lfs_size": size,
                }
            else:
                entries[name] = {"size": size, "blob_id": blob}
        trees = self.path / "trees"
        trees.mkdir(exist_ok=True)
        document = {"format_version": 1, "files": entries}
        (trees / f"{revision}.json").write_text(json.dumps(document, indent=1))

    def _share(self, blob: Path, content: Content) -> None:
        store = self.hub / "blobs"
        store.mkdir(exist_ok=True)
        (store / SHARED_MARKER).write_text("1\n")
        xet_hash = hashlib.sha256(b"xet" + blob.name.encode()).hexdigest()
        payload = store / xet_hash[:2] / xet_hash
        payload.parent.mkdir(exist_ok=True)
        if not payload.exists():
            _write(payload, content)
            payload.chmod(0o444)
        with payload.with_name(f"{xet_hash}.refs").open("a") as manifest:
            manifest.write(f"{blob.relative_to(self.hub).as_posix()}\n")
        if not blob.is_symlink():
            blob.symlink_to(os.path.relpath(payload, blob.parent))


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the pointer file for a file in Git LFS.

    See https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
    """
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _write(path: Path, content: Content) -> None:
    if isinstance(content, Payload):
        content.write(path)
    else:
        path.write_bytes(content)
