"""Helpers for downloads from the local hub, and checks of the result."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from mlxk_tui.demo.hub import Generated, LocalHub
from mlxk_tui.demo.hub.blobs import Content
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.download.download import DownloadOptions, DownloadResult, DownloadSource, download
from mlxk_tui.ops.hub.remote_files import RemoteFile

FAST = DownloadOptions(backoff_s=0.01, longest_backoff_s=0.05, read_s=1.0, connect_s=1.0, silence_s=2.0)
"""For hubs that fail at once."""

CHILD = """
import asyncio, json, sys
from pathlib import Path
from mlxk_tui.ops.download.download import DownloadOptions, download
from mlxk_tui.ops.download.options import DownloadSource
from mlxk_tui.ops.hub.remote_files import RemoteFile
given = json.loads(sys.argv[1])
source = DownloadSource(**given["source"])
files = [RemoteFile(**file) for file in given["files"]]
def on_event(event):
    print(json.dumps([event.stage, event.bytes_done]), flush=True)
done = asyncio.run(download(source, files, Path(given["folder"]), on_event=on_event))
print(json.dumps(["done", done.bytes_downloaded, done.bytes_reused]), flush=True)
"""
"""A process that downloads what its argument says."""


@dataclass
class Model:
    """A repo of the local hub and the cache for its download."""

    hub: LocalHub
    name: str
    commit: str
    cache: Path
    events: list[Progress] = field(default_factory=list)
    endpoint: str = ""
    """Address of the hub, if it is not its own."""

    @property
    def folder(self) -> Path:
        return self.cache / f"models--{self.name.replace('/', '--')}"

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / self.commit

    @property
    def source(self) -> DownloadSource:
        return DownloadSource(self.endpoint or self.hub.url, self.name, self.commit, self.hub.GOOD_TOKEN)

    @property
    def files(self) -> list[RemoteFile]:
        return [
            RemoteFile(path, entry.blob.size, entry.etag, "sha256" if entry.lfs else "git-sha1")
            for path, entry in self.hub.repos[self.name].find(self.commit).entries.items()
        ]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def sent(self) -> int:
        """Bytes of this repo's files that the hub has sent."""
        return sum(
            request.bytes_sent
            for request in self.hub.requests
            if self.name in request.path and (request.origin == "cdn" or "/resolve" in request.path)
        )

    async def download(self, options: DownloadOptions = FAST) -> DownloadResult:
        return await download(
            self.source, self.files, self.folder, options=options, on_event=self.events.append
        )

    def command(self) -> list[str]:
        """Return the command of a process that downloads the repo."""
        given = {
            "source": {name: getattr(self.source, name) for name in ("endpoint", "repo", "commit", "token")},
            "files": [vars(file) for file in self.files],
            "folder": str(self.folder),
        }
        return [sys.executable, "-c", CHILD, json.dumps(given)]

    def etag(self, path: str) -> str:
        return next(file.etag for file in self.files if file.path == path)

    def check_whole(self) -> None:
        """Check that every file exists with the right content, and nothing else."""
        self.check_nothing_wrong()
        wanted = {file.path for file in self.files}
        assert self.in_snapshot() == wanted
        assert {path.name for path in self.blobs.iterdir()} == {file.etag for file in self.files}

    def check_nothing_wrong(self) -> None:
        """Check that all files of the snapshot and all finished blobs match their checksums."""
        algorithms = {file.etag: file.algorithm for file in self.files}
        etags = {file.path: file.etag for file in self.files}
        for path in self.in_snapshot():
            assert checksum(self.snapshot / path, algorithms[etags[path]]) == etags[path]
        for blob in self.blobs.iterdir() if self.blobs.exists() else ():
            if not blob.name.endswith(".incomplete"):
                assert checksum(blob, algorithms[blob.name]) == blob.name

    def in_snapshot(self) -> set[str]:
        found: set[str] = set()
        for folder, _, names in os.walk(self.snapshot):
            found |= {os.path.relpath(os.path.join(folder, name), self.snapshot) for name in names}
        return found


def checksum(path: Path, algorithm: str) -> str:
    data = path.read_bytes()
    if algorithm == "sha256":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def small_files(weights: int = 300_000, *, seed: int = 1) -> dict[str, Content]:
    """Return a model: a few small files, one of them empty, and one that is downloaded in ranges."""
    return {
        "config.json": b'{"model_type": "llama"}',
        "empty.txt": b"",
        "sub/folder/notes.md": b"# Notes\n" * 50,
        "model.safetensors": Generated(weights, seed),
    }
