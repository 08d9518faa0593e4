"""Downloads files with huggingface_hub in a child process, through Xet if the hub offers it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from mlxk_tui.ops.core.child_process import ChildProcess
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, ignore_event
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.download.options import DownloadResult, DownloadSource
from mlxk_tui.ops.hub.remote_files import RemoteFile

_POLL_S = 0.2
_STALL_S = 300.0
_INCOMPLETE = ".incomplete"
_BLOCK = 512
"""Bytes of a block in `st_blocks`."""


async def download_via_hub(
    source: DownloadSource,
    files: Sequence[RemoteFile],
    cache_root: Path,
    repo_folder: Path,
    *,
    broken: Collection[str] = (),
    stall_s: float = _STALL_S,
    on_event: OnEvent = ignore_event,
) -> DownloadResult:
    """Download files into the cache with huggingface_hub, which verifies only their sizes.

    When the task is cancelled the process is killed. Partial files are lost then, because huggingface_hub
    restarts each file; finished ones stay.

    Args:
        source: the commit.
        files: the files to download.
        cache_root: the hub cache.
        repo_folder: the repo's folder in it.
        broken: etags of existing files that must be downloaded again.
        stall_s: seconds without new bytes after which the download fails.
        on_event: receives progress, determined from file sizes on disk.

    Raises:
        OpError: `network_error`, `access_denied`, `auth_error`, `repo_not_found`, `disk_full`,
            `permission_denied`, `download_failed`.
    """
    progress = _DiskProgress(files, repo_folder / "blobs", frozenset(broken), on_event)
    job = {
        "endpoint": source.endpoint,
        "repo": source.repo,
        "commit": source.commit,
        "token": source.token,
        "cache": os.fspath(cache_root),
        "files": [file.path for file in files],
        "force": [file.path for file in files if file.etag in broken],
    }
    before = await asyncio.to_thread(progress.count)
    process = await ChildProcess.start(
        "mlxk_tui.ops.hub.download_worker",
        environ={
            **os.environ,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_ENDPOINT": source.endpoint,
        },
        own_session=True,
    )
    try:
        process.send(job)
        result_line = asyncio.ensure_future(process.stdout.readline())
        try:
            await _wait_for_result(result_line, progress, stall_s)
            result = _parse_result(await result_line)
        finally:
            result_line.cancel()
    except ConnectionError:
        raise _unexpected_end() from None
    finally:
        await process.end()
    if result["type"]:
        raise OpError.from_dict(result)
    after = await asyncio.to_thread(progress.count)
    if after < progress.bytes_total:
        raise OpError(
            ErrorType.DOWNLOAD_FAILED,
            f"huggingface_hub left files of {source.repo} incomplete.",
            remedy=Remedy.PULL_AGAIN,
        )
    return DownloadResult(max(0, after - before), before, len(files))


async def _wait_for_result(
    result_line: asyncio.Future[bytes], progress: _DiskProgress, stall_s: float
) -> None:
    """Report progress until the child sends its result."""
    seen, since = -1, time.monotonic()
    while not result_line.done():
        await asyncio.wait([result_line], timeout=_POLL_S)
        count = await asyncio.to_thread(progress.report)
        if count != seen:
            seen, since = count, time.monotonic()
        elif time.monotonic() - since > stall_s:
            raise OpError(
                ErrorType.NETWORK_ERROR,
                f"huggingface_hub has received no data for {stall_s:.0f} seconds.",
                remedy=Remedy.PULL_AGAIN,
            )


def _parse_result(line: bytes) -> dict[str, object]:
    try:
        result: dict[str, object] = json.loads(line)
    except ValueError:
        raise _unexpected_end() from None
    return result


def _unexpected_end() -> OpError:
    return OpError(
        ErrorType.DOWNLOAD_FAILED,
        "The download process of huggingface_hub ended unexpectedly.",
        remedy=Remedy.PULL_AGAIN,
    )


class _DiskProgress:
    """Measures the progress of files on disk while another process writes them."""

    def __init__(
        self, files: Sequence[RemoteFile], blobs: Path, broken: frozenset[str], on_event: OnEvent
    ) -> None:
        self._files = {file.etag: file for file in files}
        self._blobs = blobs
        self._broken = broken
        self._old = {etag: self._stamp(etag) for etag in broken}
        self._on_event = on_event
        self._began = time.monotonic()
        self._first: int | None = None
        self._counts: dict[str, int] = {}
        self.bytes_total = sum(file.size for file in self._files.values())

    def count(self) -> int:
        """Return the bytes on disk, in complete and partial files. Blocking."""
        parts: dict[str, int] = {}
        with contextlib.suppress(OSError), os.scandir(self._blobs) as entries:
            for entry in entries:
                etag = entry.name.partition(".")[0]
                if etag in self._files and entry.name.endswith(_INCOMPLETE):
                    with contextlib.suppress(OSError):
                        info = entry.stat(follow_symlinks=False)
                        there = min(info.st_size, info.st_blocks * _BLOCK, self._files[etag].size)
                        parts[etag] = max(parts.get(etag, 0), there)
        self._counts = {etag: self._count_blob(etag, parts.get(etag, 0)) for etag in self._files}
        return sum(self._counts.values())

    def _count_blob(self, etag: str, part: int) -> int:
        stamp = self._stamp(etag)
        whole = stamp is not None and not (etag in self._broken and stamp == self._old[etag])
        return self._files[etag].size if whole and stamp and stamp[0] == self._files[etag].size else part

    def _stamp(self, etag: str) -> tuple[int, int, int] | None:
        try:
            info = os.stat(self._blobs / etag)
        except OSError:
            return None
        return info.st_size, info.st_ino, info.st_mtime_ns

    def report(self) -> int:
        """Send an event with the bytes on disk, and return them. Blocking."""
        before = self._counts
        total = self.count()
        self._first = total if self._first is None else self._first
        most_active = max(self._files, key=lambda etag: self._counts[etag] - before.get(etag, 0))
        file = self._files[most_active]
        done = sum(self._counts[etag] >= known.size for etag, known in self._files.items())
        self._on_event(
            Progress(
                "pull",
                file.path,
                total,
                self.bytes_total,
                max(0, total - self._first) / max(time.monotonic() - self._began, 1e-3),
                done,
                len(self._files),
                self._counts[most_active],
                file.size,
            )
        )
        return total
