"""Child process in which huggingface_hub uploads: `python -m mlxk_tui.ops.push.upload_worker`.

An upload cannot be stopped from inside, so the parent kills this process, which also isolates
huggingface_hub's settings, logs and warnings. It reads the job, token included, as one line of JSON from
stdin, and writes progress, log lines and finally the result as lines of JSON to stdout. It exits when stdin
closes, which means that the parent has ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from io import BufferedReader, FileIO
from typing import Any, cast

from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.lifeline import die_with_parent, exit_when_stdin_closes
from mlxk_tui.ops.core.retry_after import retry_after
from mlxk_tui.ops.hub.client import Timeouts, headers_for, new_api, prepare
from mlxk_tui.ops.hub.errors import RequestContext, map_error
from mlxk_tui.ops.push.files import LocalFile, Stamp

_INTERVAL_S = 0.1
_FILES_AT_ONCE = 5
_XET_BATCH = 64_000_000
"""Bytes in a batch of files for Xet; progress is reported after each batch."""
_COMMIT_PAUSES = (1.0, 3.0)
"""Seconds before the second and the third attempt to commit."""
_MAX_PAUSE = 20.0
_MAX_CARD_BYTES = 1_000_000
_MAX_LOG_LINE = 500
_MAX_LOG_LINES = 200
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
"""Query of signed upload URLs, which grants access and must not be logged."""


class _MessageWriter:
    """Writes lines of JSON to stdout; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()


class _LogForwarder(logging.Handler):
    """Forwards the log lines of huggingface_hub without secrets."""

    def __init__(self, writer: _MessageWriter, token: str) -> None:
        super().__init__(logging.INFO)
        self._writer = writer
        self._token = token
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._count += 1
        if self._count > _MAX_LOG_LINES:
            return
        with contextlib.suppress(Exception):  # a malformed log line must not end the upload
            text = _QUERY.sub(r"\1?…", record.getMessage().replace(self._token, "…"))
            self._writer.send(event="log", line=text.strip()[:_MAX_LOG_LINE])


class _ProgressWriter:
    """Reports the progress of each file, at most ten times a second."""

    def __init__(self, writer: _MessageWriter) -> None:
        self._writer = writer
        self._sent: dict[str, float] = {}

    def report_bytes(self, path: str, done: int) -> None:
        now = time.monotonic()
        if now - self._sent.get(path, 0.0) >= _INTERVAL_S:
            self._sent[path] = now
            self._writer.send(event="bytes", path=path, done=done)

    def report_complete(self, paths: Sequence[str]) -> None:
        self._writer.send(event="whole", paths=list(paths))


class _ProgressFile(BufferedReader):
    """A file that reports the read position, which moves back if a part is sent again."""

    def __init__(self, path: str, name: str, progress: _ProgressWriter) -> None:
        super().__init__(FileIO(path), 1 << 20)
        self._name_in_repo = name
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if data:
            self._progress.report_bytes(self._name_in_repo, self.tell())
        return data


def main() -> int:
    """Upload the files of the job on stdin; return the exit status."""
    die_with_parent(sys.argv[1:])
    job: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    exit_when_stdin_closes()
    writer = _MessageWriter()
    context = RequestContext(job["endpoint"], job["repo"], job["branch"], True, job["token"])
    try:
        result = _Uploader(job, writer).run()
    except Exception as error:  # noqa: BLE001 - all errors are reported to the parent
        writer.send(event="failed", **_failure_message(error, context))
        return 1
    writer.send(event="done", **result)
    return 0


class _MovedError(Exception):
    """The branch is no longer at the commit that the plan was made for."""


class _ChangedError(Exception):
    """A local file has changed since the plan was made."""


class _CardError(Exception):
    """The hub rejected the model card."""


class _Uploader:
    """Uploads the files of a job and commits them."""

    def __init__(self, job: dict[str, Any], writer: _MessageWriter) -> None:
        self._job = job
        self._progress = _ProgressWriter(writer)
        timeouts = Timeouts(connect_s=job["connect_s"], read_s=job["read_s"])
        prepare(timeouts)
        logger = logging.getLogger("huggingface_hub")
        logger.setLevel(logging.INFO)
        logger.addHandler(_LogForwarder(writer, job["token"]))
        warnings.simplefilter("ignore")
        self._api = new_api(job["endpoint"], job["token"])
        self._files = [
            LocalFile(item["path"], item["full"], item["size"], cast("Stamp", tuple(item["stamp"])))
            for item in job["files"]
        ]

    def run(self) -> dict[str, Any]:
        """Upload and commit; return the commit and its URL.

        Raises:
            _ChangedError: a file changed meanwhile; reported instead of errors that it caused.
        """
        try:
            self._check_files()
            self._check_card()
            return self._upload()
        except Exception:
            self._check_files()
            raise

    def _check_files(self) -> None:
        for file in self._files:
            if file.has_changed():
                raise _ChangedError(file.path)

    def _upload(self) -> dict[str, Any]:
        from huggingface_hub import CommitOperationDelete

        operations = [self._operation(item) for item in self._job["files"]]
        for batch in self._batches(operations):
            self._api.preupload_lfs_files(
                self._job["repo"],
                additions=batch,
                revision=self._job["branch"],
                num_threads=_FILES_AT_ONCE,
                free_memory=False,
            )
            self._progress.report_complete([operation.path_in_repo for operation in batch])
        deletions = [CommitOperationDelete(path, is_folder=False) for path in self._job["deleted"]]
        for pause in (*_COMMIT_PAUSES, None):
            self._check_files()
            try:
                info = self._api.create_commit(
                    self._job["repo"],
                    [*operations, *deletions],
                    commit_message=self._job["message"],
                    revision=self._job["branch"],
                    parent_commit=self._job["parent"],
                )
            except Exception as error:
                wait = self._retry_delay(error, pause)
                if wait is None:
                    raise
                time.sleep(wait)
            else:
                return {"commit": str(info.oid), "url": str(info.commit_url)}
        raise AssertionError("the last attempt returns or raises")

    def _check_card(self) -> None:
        """Validate the model card with the hub before anything is uploaded.

        Raises:
            _CardError: it is invalid.
        """
        card = next((file for file in self._files if file.path == "README.md"), None)
        if card is None or card.size > _MAX_CARD_BYTES:
            return
        try:
            with open(card.full, encoding="utf-8", newline="") as file:
                content = file.read()
        except UnicodeDecodeError:
            raise _CardError("it is not UTF-8 text") from None
        errors = ""
        with contextlib.suppress(Exception):  # the commit validates it again
            from huggingface_hub import get_session

            response = get_session().post(
                f"{self._job['endpoint']}/api/validate-yaml",
                json={"content": content, "repoType": "model"},
                headers=headers_for(self._job["token"]),
            )
            if response.status_code == 400:
                errors = "; ".join(str(item["message"]) for item in response.json()["errors"])
        if errors:
            raise _CardError(errors)

    def _retry_delay(self, error: Exception, pause: float | None) -> float | None:
        """Return the seconds before the next attempt to commit, or None for no further attempt.

        Raises:
            _MovedError: another commit was made, or this commit succeeded and its response was lost.
        """
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        names = {kind.__name__ for kind in type(error).__mro__}
        lost = status is None and bool(names & {"TransportError", "TimeoutException"})
        if status == 412:
            raise _MovedError from error
        if not lost and status not in {408, 429, 500, 502, 503, 504}:
            return None
        head = self._job["parent"]
        with contextlib.suppress(Exception):  # the original error is reported then
            head = self._api.repo_info(self._job["repo"], revision=self._job["branch"]).sha
        if head != self._job["parent"]:
            raise _MovedError from error
        context = retry_after(getattr(response, "headers", None) or {}) or 0.0
        return None if pause is None or context > _MAX_PAUSE else max(pause, context)

    def _operation(self, item: dict[str, Any]) -> Any:
        from huggingface_hub import CommitOperationAdd

        progress = self._progress

        class Addition(CommitOperationAdd):
            @contextlib.contextmanager
            def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
                if not with_tqdm:  # read for hashing, or sent with the commit
                    with super().as_file() as file:
                        yield file
                    return
                with _ProgressFile(str(self.path_or_fileobj), self.path_in_repo, progress) as file:
                    yield file

        addition = Addition(path_in_repo=item["path"], path_or_fileobj=item["full"])
        addition.upload_info.sha256 = bytes.fromhex(item["sha256"])
        return addition

    def _batches(self, operations: list[Any]) -> Iterator[list[Any]]:
        """Yield batches of files to upload: all at once, or with Xet a few, since it reports no progress."""
        if not self._job["xet"]:
            yield operations
            return
        batch: list[Any] = []
        total = 0
        for operation in operations:
            batch.append(operation)
            total += operation.upload_info.size
            if total >= _XET_BATCH:
                yield batch
                batch, total = [], 0
        if batch:
            yield batch


def _failure_message(error: Exception, context: RequestContext) -> dict[str, Any]:
    """Return an error as a message for the parent."""
    if isinstance(error, _MovedError):
        return {"why": "moved"}
    if isinstance(error, _ChangedError):
        return {"why": "changed", "path": str(error)}
    if isinstance(error, UnicodeDecodeError):  # only the model card is decoded in a push
        return {"why": "card", "message": "it is not UTF-8 text"}
    if isinstance(error, _CardError):
        return {"why": "card", "message": str(error)[:300]}
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        return {"why": "card", "message": str(error).strip().splitlines()[-1][:300]}
    known = map_error(error, context)
    status = 0
    link: BaseException | None = error
    while link is not None and not status:
        status = int(getattr(getattr(link, "response", None), "status_code", 0) or 0)
        link = link.__cause__ or link.__context__
    unknown = "invalid rev id" in str(error).lower()  # the hub sends no error code in this case
    kind = ErrorType.REVISION_NOT_FOUND if unknown else known.type
    return {
        "why": "error",
        **known.as_type(kind).to_dict(),
        "status": status,
        "kind": type(error).__name__,
    }


if __name__ == "__main__":
    exit_status = main()
    os._exit(exit_status)  # threads of a failed upload may still be running
