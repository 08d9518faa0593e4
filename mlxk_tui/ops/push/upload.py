"""The upload of a push as its parent sees it: starts the child process, follows it, ends it."""

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
from mlxk_tui.ops.push.files import Digest, LocalFile, changed_meanwhile
from mlxk_tui.ops.push.terms import PushLimits, PushRequest

_LINE_LIMIT = 1 << 24
"""Bytes of a line of the child's, which may name every file."""
_REFUSALS = frozenset({ErrorType.ACCESS_DENIED, ErrorType.NETWORK_ERROR, ErrorType.DOWNLOAD_FAILED})
"""Types that mean `upload_failed` when the hub answered with an error."""


class MovedError(Exception):
    """The branch is at another commit than the plan was made for."""


@dataclass(frozen=True)
class Upload:
    """What the child is to do."""

    endpoint: str
    token: str
    request: PushRequest
    parent: str
    """Commit that the branch is at."""
    files: Sequence[LocalFile]
    digests: Mapping[str, Digest]
    deleted: Sequence[str] = ()
    xet: bool = False


@dataclass
class Uploaded:
    """What came of it."""

    commit: str = ""
    url: str = ""
    logs: list[str] = field(default_factory=list)
    """What huggingface_hub logged, safe to show."""


async def upload(
    job: Upload, limits: PushLimits, into: Uploaded, on_event: OnEvent, on_log: Callable[[str], None]
) -> None:
    """Upload and commit; `into` has the log lines even when it fails.

    When the task is cancelled the child is killed: what had not been committed by then is not in the
    repo, and what arrived whole is not sent again.

    Raises:
        MovedError: the branch moved, be it by this very commit whose answer was lost.
        OpError: `upload_failed`, `auth_error`, `network_error`, `repo_not_found`, `revision_not_found`,
            `push_operation_failed`.
    """
    progress = _Progress(job.files, on_event)
    process = await ChildProcess.start(
        "mlxk_tui.ops.push.upload_worker", environ=_environment(job), own_session=True, line_bytes=_LINE_LIMIT
    )
    try:
        process.send(_words(job, limits))
        await _follow(process.stdout, job, limits, into, progress, on_log)
    except (ConnectionError, ValueError):
        raise _died() from None
    finally:
        await process.end()


async def _follow(
    lines: asyncio.StreamReader,
    job: Upload,
    limits: PushLimits,
    into: Uploaded,
    progress: _Progress,
    on_log: Callable[[str], None],
) -> None:
    """Take what the child says until it is done."""
    moved = time.monotonic()
    while True:
        patience = None if job.xet else limits.stall_s - (time.monotonic() - moved)
        line = await _next(lines, patience)
        if line is None:
            raise OpError(
                ErrorType.NETWORK_ERROR,
                f"Nothing has moved for {limits.stall_s:.0f} seconds.",
                remedy=Remedy.PUSH_AGAIN,
            )
        if not line:
            raise _died()
        message: dict[str, Any] = json.loads(line)
        kind = message.pop("event")
        if kind == "log":
            text = printable(message["line"])
            into.logs.append(text)
            on_log(text)
            continue
        moved = time.monotonic()
        if kind == "bytes":
            progress.at(message["path"], message["done"])
        elif kind == "whole":
            progress.whole(message["paths"])
        elif kind == "failed":
            raise _failure(job, message)
        else:
            progress.end()
            into.commit, into.url = message["commit"], message["url"]
            return


async def _next(lines: asyncio.StreamReader, patience: float | None) -> bytes | None:
    """Return the next line, None when there is none within so many seconds.

    Not `asyncio.wait_for`: before Python 3.12 that forgets a cancellation which comes along with a line.
    """
    line = asyncio.ensure_future(lines.readline())
    try:
        await asyncio.wait([line], timeout=patience if patience is None else max(0.0, patience))
        return line.result() if line.done() else None
    finally:
        line.cancel()


def _words(job: Upload, limits: PushLimits) -> dict[str, Any]:
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


def _environment(job: Upload) -> dict[str, str]:
    """Return the child's environment; the token goes another way."""
    kept = {name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES}
    kept.update(
        HF_ENDPOINT=job.endpoint,
        HF_HUB_DISABLE_IMPLICIT_TOKEN="1",  # noqa: S106 - a switch
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        HF_HUB_DISABLE_TELEMETRY="1",
    )
    if not job.xet:
        kept["HF_HUB_DISABLE_XET"] = "1"
    return kept


def _failure(job: Upload, message: dict[str, Any]) -> Exception:
    """Return what a failed child tells, as the contract has it."""
    why = message["why"]
    if why == "moved":
        return MovedError()
    if why == "changed":
        return changed_meanwhile(str(message["path"]))
    if why == "card":
        return OpError(
            ErrorType.UPLOAD_FAILED,
            f"The hub does not take README.md: {printable(str(message['message'])).rstrip('.')}.",
            remedy=Remedy.REPAIR_MODEL_CARD,
        )
    known = OpError.from_dict(message)
    if message["status"] and known.type in _REFUSALS:
        return known.as_type(ErrorType.UPLOAD_FAILED, f"The upload failed: {known.message}")
    if not message["status"] and known.type is ErrorType.NETWORK_ERROR and message["kind"] == "ValueError":
        return known.as_type(ErrorType.PUSH_OPERATION_FAILED)
    return known


def _died() -> OpError:
    return OpError(
        ErrorType.PUSH_OPERATION_FAILED,
        "The process in which huggingface_hub uploads ended unexpectedly.",
        remedy=Remedy.PUSH_AGAIN,
    )


class _Progress:
    """Adds up how far the files are, and tells of it."""

    def __init__(self, files: Sequence[LocalFile], on_event: OnEvent) -> None:
        self._sizes = {file.path: file.size for file in files}
        self._done = dict.fromkeys(self._sizes, 0)
        self._whole: set[str] = set()
        self._total = sum(self._sizes.values())
        self._bytes = 0
        self._moved = 0
        self._on_event = on_event
        self._began = time.monotonic()

    def at(self, path: str, done: int) -> None:
        """Take note that so many bytes of a file have gone."""
        if path not in self._sizes:
            return
        done = min(done, self._sizes[path])
        self._moved += max(0, done - self._done[path])
        self._set(path, done)
        self._send(path)

    def whole(self, paths: Sequence[str]) -> None:
        """Take note that nothing of these has to go any more."""
        for path in paths:
            if path in self._sizes:
                self._set(path, self._sizes[path])
                self._whole.add(path)
                self._send(path)

    def end(self) -> None:
        """Tell that everything is there."""
        self._done.update(self._sizes)
        self._bytes = self._total
        self._whole.update(self._sizes)
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
                len(self._whole),
                len(self._sizes),
                self._done.get(path, 0),
                self._sizes.get(path, 0),
            )
        )
