"""The child process in which huggingface_hub uploads: `python -m mlxk_tui.ops.push.upload_worker`.

Nothing can stop an upload from inside, so its parent ends this process, and huggingface_hub's settings,
log and warnings stay in here. One line of JSON on stdin says what to upload, token included; lines of
JSON on stdout tell of progress, of what huggingface_hub logs, and at last how it went. When stdin closes
the parent is gone, and so is this.
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
"""Bytes that go to Xet at once; after each such batch the files in it count as done."""
_COMMIT_PAUSES = (1.0, 3.0)
"""Seconds before the second and the third attempt to commit."""
_MAX_PAUSE = 20.0
_MAX_CARD_BYTES = 1_000_000
_MAX_LOG_LINE = 500
_MAX_LOG_LINES = 200
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")
"""Links to upload to are signed in their query; whoever knows it may upload."""


class _Pipe:
    """Stdout: one line of JSON at a time, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()


class _Log(logging.Handler):
    """Sends on what huggingface_hub logs, without secrets."""

    def __init__(self, pipe: _Pipe, token: str) -> None:
        super().__init__(logging.INFO)
        self._pipe = pipe
        self._token = token
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._count += 1
        if self._count > _MAX_LOG_LINES:
            return
        with contextlib.suppress(Exception):  # a line that cannot be made is not worth an upload
            text = _QUERY.sub(r"\1?…", record.getMessage().replace(self._token, "…"))
            self._pipe.send(event="log", line=text.strip()[:_MAX_LOG_LINE])


class _Steps:
    """Tells how far each file is, ten times a second at most."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self._sent: dict[str, float] = {}

    def at(self, path: str, done: int) -> None:
        now = time.monotonic()
        if now - self._sent.get(path, 0.0) >= _INTERVAL_S:
            self._sent[path] = now
            self._pipe.send(event="bytes", path=path, done=done)

    def whole(self, paths: Sequence[str]) -> None:
        self._pipe.send(event="whole", paths=list(paths))


class _Counted(BufferedReader):
    """A file that tells how far it was read; a repeated part goes back."""

    def __init__(self, path: str, name: str, steps: _Steps) -> None:
        super().__init__(FileIO(path), 1 << 20)
        self._name_in_repo = name
        self._steps = steps

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if data:
            self._steps.at(self._name_in_repo, self.tell())
        return data


def main() -> int:
    """Upload what stdin says and return the exit status."""
    die_with_parent(sys.argv[1:])
    job: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    exit_when_stdin_closes()
    pipe = _Pipe()
    asked = RequestContext(job["endpoint"], job["repo"], job["branch"], True, job["token"])
    try:
        result = _Push(job, pipe).run()
    except Exception as error:  # noqa: BLE001 - the border: the parent tells the user
        pipe.send(event="failed", **_described(error, asked))
        return 1
    pipe.send(event="done", **result)
    return 0


class _MovedError(Exception):
    """The branch is not at the commit any more that the plan was made for."""


class _ChangedError(Exception):
    """A local file is not what it was when the plan was made."""


class _CardError(Exception):
    """The hub does not take the model card."""


class _Push:
    """One push, from the files' names to the commit."""

    def __init__(self, job: dict[str, Any], pipe: _Pipe) -> None:
        self._job = job
        self._steps = _Steps(pipe)
        timeouts = Timeouts(connect_s=job["connect_s"], read_s=job["read_s"])
        prepare(timeouts)
        logger = logging.getLogger("huggingface_hub")
        logger.setLevel(logging.INFO)
        logger.addHandler(_Log(pipe, job["token"]))
        warnings.simplefilter("ignore")
        self._api = new_api(job["endpoint"], job["token"])
        self._files = [
            LocalFile(item["path"], item["full"], item["size"], cast("Stamp", tuple(item["stamp"])))
            for item in job["files"]
        ]

    def run(self) -> dict[str, Any]:
        """Upload and commit; return the commit and its address.

        Raises:
            _ChangedError: a file changed meanwhile, whatever else went wrong because of it.
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
            if file.changed():
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
            self._steps.whole([operation.path_in_repo for operation in batch])
        gone = [CommitOperationDelete(path, is_folder=False) for path in self._job["deleted"]]
        for pause in (*_COMMIT_PAUSES, None):
            self._check_files()
            try:
                info = self._api.create_commit(
                    self._job["repo"],
                    [*operations, *gone],
                    commit_message=self._job["message"],
                    revision=self._job["branch"],
                    parent_commit=self._job["parent"],
                )
            except Exception as error:
                wait = self._wait_for_retry(error, pause)
                if wait is None:
                    raise
                time.sleep(wait)
            else:
                return {"commit": str(info.oid), "url": str(info.commit_url)}
        raise AssertionError("the last attempt returns or raises")

    def _check_card(self) -> None:
        """Ask the hub whether the model card is one, before anything is uploaded and not after.

        Raises:
            _CardError: it is none.
        """
        card = next((file for file in self._files if file.path == "README.md"), None)
        if card is None or card.size > _MAX_CARD_BYTES:
            return
        try:
            with open(card.full, encoding="utf-8", newline="") as file:
                content = file.read()
        except UnicodeDecodeError:
            raise _CardError("it is no UTF-8 text") from None
        wrong = ""
        with contextlib.suppress(Exception):  # the commit asks again, and knows what is wrong
            from huggingface_hub import get_session

            answer = get_session().post(
                f"{self._job['endpoint']}/api/validate-yaml",
                json={"content": content, "repoType": "model"},
                headers=headers_for(self._job["token"]),
            )
            if answer.status_code == 400:
                wrong = "; ".join(str(item["message"]) for item in answer.json()["errors"])
        if wrong:
            raise _CardError(wrong)

    def _wait_for_retry(self, error: Exception, pause: float | None) -> float | None:
        """Return how long to wait before committing again, None for not at all.

        Raises:
            _MovedError: somebody else has committed, or the commit was made and its answer lost.
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
        with contextlib.suppress(Exception):  # then the error that there was is told
            head = self._api.repo_info(self._job["repo"], revision=self._job["branch"]).sha
        if head != self._job["parent"]:
            raise _MovedError from error
        asked = retry_after(getattr(response, "headers", None) or {}) or 0.0
        return None if pause is None or asked > _MAX_PAUSE else max(pause, asked)

    def _operation(self, item: dict[str, Any]) -> Any:
        from huggingface_hub import CommitOperationAdd

        steps = self._steps

        class Addition(CommitOperationAdd):
            @contextlib.contextmanager
            def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
                if not with_tqdm:  # it is hashed, or goes along with the commit
                    with super().as_file() as file:
                        yield file
                    return
                with _Counted(str(self.path_or_fileobj), self.path_in_repo, steps) as file:
                    yield file

        addition = Addition(path_in_repo=item["path"], path_or_fileobj=item["full"])
        addition.upload_info.sha256 = bytes.fromhex(item["sha256"])
        return addition

    def _batches(self, operations: list[Any]) -> Iterator[list[Any]]:
        """Yield what is uploaded at once: with Xet, which tells nothing on the way, a few files."""
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


def _described(error: Exception, asked: RequestContext) -> dict[str, Any]:
    """Return what went wrong in words that a parent can pass on."""
    if isinstance(error, _MovedError):
        return {"why": "moved"}
    if isinstance(error, _ChangedError):
        return {"why": "changed", "path": str(error)}
    if isinstance(error, UnicodeDecodeError):  # nothing else is decoded in a push
        return {"why": "card", "message": "it is no UTF-8 text"}
    if isinstance(error, _CardError):
        return {"why": "card", "message": str(error)[:300]}
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        return {"why": "card", "message": str(error).strip().splitlines()[-1][:300]}
    known = map_error(error, asked)
    status = 0
    link: BaseException | None = error
    while link is not None and not status:
        status = int(getattr(getattr(link, "response", None), "status_code", 0) or 0)
        link = link.__cause__ or link.__context__
    unknown = "invalid rev id" in str(error).lower()  # how the hub words it where it sends no error code
    kind = ErrorType.REVISION_NOT_FOUND if unknown else known.type
    return {
        "why": "error",
        **known.as_type(kind).to_dict(),
        "status": status,
        "kind": type(error).__name__,
    }


if __name__ == "__main__":
    exit_status = main()
    os._exit(exit_status)  # threads of an upload that failed may still be at work
