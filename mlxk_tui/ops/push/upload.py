"""Runs the upload of a push in a child process, and follows its progress."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlxk_tui.ops.core.child_process import ChildProcess
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.hub import TOKEN_VARIABLES
from mlxk_tui.ops.push.files import Digest, LocalFile, changed_file_error
from mlxk_tui.ops.push.request import PushLimits, PushRequest

_LINE_LIMIT = 1 << 24
"""Longest line from the child in bytes; it may name all files."""
_REFUSALS = frozenset({ErrorType.ACCESS_DENIED, ErrorType.NETWORK_ERROR, ErrorType.DOWNLOAD_FAILED})
"""Error types that become `upload_failed` if the hub responded with an error."""


class BranchMovedError(Exception):
    """The branch is no longer at the commit that the plan was made for."""


@dataclass(frozen=True)
class UploadJob:
    """The job of the child process."""

    endpoint: str
    token: str
    request: PushRequest
    parent: str
    """Expected head of the branch."""
    files: Sequence[LocalFile]
    digests: Mapping[str, Digest]
    deleted: Sequence[str] = ()
    xet: bool = False


@dataclass
class UploadResult:
    """Commit of an upload, and its log lines so far."""

    commit: str = ""
    url: str = ""
    logs: list[str] = field(default_factory=list)
    """Log lines of huggingface_hub, escaped for display."""


async def upload(
    job: UploadJob, limits: PushLimits, result: UploadResult, on_event: OnEvent, on_log: Callable[[str], None]
) -> None:
    """Upload and commit; `result` gets the log lines even if the upload fails.

    Cancelling the task kills the child: without the commit the repo is unchanged, and completely uploaded
    files are not sent again.

    Raises:
        BranchMovedError: the branch moved, possibly by this commit if the hub's response was lost.
        OpError: `upload_failed`, `auth_error`, `network_error`, `repo_not_found`, `revision_not_found`,
            `push_operation_failed`.
    """
    progress = _UploadProgress(job.files, on_event)
    process = await ChildProcess.start(
        "mlxk_tui.ops.push.upload_worker", environ=_environment(job), own_session=True, line_bytes=_LINE_LIMIT
    )
    try:
        process.send(_job_message(job, limits))
        await _follow(process.stdout, job, limits, result, progress, on_log)
    except (ConnectionError, ValueError):
        raise _unexpected_end() from None
    finally:
        await process.end()


async def _follow(
    lines: asyncio.StreamReader,
    job: UploadJob,
    limits: PushLimits,
    result: UploadResult,
    progress: _UploadProgress,
    on_log: Callable[[str], None],
) -> None:
    """Process the child's messages until it is done."""
    progress_at = time.monotonic()
    while True:
        timeout = None if job.xet else limits.stall_s - (time.monotonic() - progress_at)
        line = await _next(lines, timeout)
        if line is None:
            raise OpError(
                ErrorType.NETWORK_ERROR,
                f"The upload has made no progress for {limits.stall_s:.0f} seconds.",
                remedy=Remedy.PUSH_AGAIN,
            )
        if not line:
            raise _unexpected_end()
        message: dict[str, Any] = json.loads(line)
        kind = message.pop("event")
        if kind == "log":
            text = printable(message["line"])
            result.logs.append(text)
            on_log(text)
            continue
        progress_at = time.monotonic()
        if kind == "bytes":
            progress.set_done(message["path"], message["done"])
        elif kind == "whole":
            progress.mark_complete(message["paths"])
        elif kind == "failed":
            raise _to_error(job, message)
        else:
            progress.finish()
            result.commit, result.url = message["commit"], message["url"]
            return


async def _next(lines: asyncio.StreamReader, timeout: float | None) -> bytes | None:
    """Return the next line, or None if there is none within the time-out.

    Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that coincides with a line.
    """
    line = asyncio.ensure_future(lines.readline())
    try:
        await asyncio.wait([line], timeout=timeout if timeout is None else max(0.0, timeout))
        return line.result() if line.done() else None
    finally:
        line.cancel()


def _job_message(job: UploadJob, limits: PushLimits) -> dict[str, Any]:
    return {
        "endpoint": job.endpoint,
        "token": job.token,
        "repo": job.request.repo_id,
        "branch": job.request.branch,
        "message": job.request.message,
        "parent": job.parent,
        "deleted": list(job.deleted),
        "xet": job.xet,
        "connect_s": limits.connect_s,
        "read_s": limits.read_s,
        "files": [
            {
                "path": file.path,
                "full": file.full,
                "size": file.size,
                "stamp": file.stamp,
                "sha256": job.digests[file.path].sha256,
            }
            for file in job.files
        ],
    }


def _environment(job: UploadJob) -> dict[str, str]:
    """Return the child's environment; the token is sent on stdin instead."""
    environment = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
    environment.update(
        HF_ENDPOINT=job.endpoint,
        HF_HUB_DISABLE_IMPLICIT_TOKEN="1",  # noqa: S106 - a switch
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    if not job.xet:
        environment["HF_HUB_DISABLE_XET"] = "1"
    return environment


def _to_error(job: UploadJob, message: dict[str, Any]) -> Exception:
    """Return the exception for a failure that the child reports."""
    reason = message["why"]
    if reason == "moved":
        return BranchMovedError()
    if reason == "changed":
        return changed_file_error(str(message["path"]))
    if reason == "card":
        return OpError(
            ErrorType.UPLOAD_FAILED,
            f"The hub rejected README.md: {printable(str(message['message'])).rstrip('.')}.",
            remedy=Remedy.REPAIR_MODEL_CARD,
        )
    known = OpError.from_dict(message)
    if message["status"] and known.type in _REFUSALS:
        return known.as_type(ErrorType.UPLOAD_FAILED, f"The upload failed: {known.message}")
    if not message["status"] and known.type is ErrorType.NETWORK_ERROR and message["kind"] == "ValueError":
        return known.as_type(ErrorType.PUSH_OPERATION_FAILED)
    return known


def _unexpected_end() -> OpError:
    return OpError(
        ErrorType.PUSH_OPERATION_FAILED,
        "The upload process of huggingface_hub ended unexpectedly.",
        remedy=Remedy.PUSH_AGAIN,
    )


class _UploadProgress:
    """Sums up the progress of all files and sends events."""

    def __init__(self, files: Sequence[LocalFile], on_event: OnEvent) -> None:
        self._sizes = {file.path: file.size for file in files}
        self._done = dict.fromkeys(self._sizes, 0)
        self._complete: set[str] = set()
        self._total = sum(self._sizes.values())
        self._bytes = 0
        self._moved = 0
        self._on_event = on_event
        self._began = time.monotonic()

    def set_done(self, path: str, done: int) -> None:
        """Record the number of bytes sent of a file."""
        if path not in self._sizes:
            return
        done = min(done, self._sizes[path])
        self._moved += max(0, done - self._done[path])
        self._set(path, done)
        self._send(path)

    def mark_complete(self, paths: Sequence[str]) -> None:
        """Record that these files need no further upload."""
        for path in paths:
            if path in self._sizes:
                self._set(path, self._sizes[path])
                self._complete.add(path)
                self._send(path)

    def finish(self) -> None:
        """Record that all files are complete."""
        self._done.update(self._sizes)
        self._bytes = self._total
        self._complete.update(self._sizes)
        self._send("")

    def _set(self, path: str, done: int) -> None:
        self._bytes += done - self._done[path]
        self._done[path] = done

    def _send(self, path: str) -> None:
        self._on_event(
            Progress(
                "push",
                printable(path),
                self._bytes,
                self._total,
                self._moved / max(time.monotonic() - self._began, 1e-3),
                len(self._complete),
                len(self._sizes),
                self._done.get(path, 0),
                self._sizes.get(path, 0),
            )
        )
