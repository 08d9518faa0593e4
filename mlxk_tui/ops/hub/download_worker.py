"""Child process in which huggingface_hub downloads: `python -m mlxk_tui.ops.hub.download_worker`.

A Xet download cannot be stopped from inside, so the parent kills this process. It reads the job as one
line of JSON from stdin and writes the result as one line to stdout. It exits when stdin closes, which
means that the parent has ended.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from mlxk_tui.ops.core.lifeline import die_with_parent, exit_when_stdin_closes
from mlxk_tui.ops.hub.client import LIBRARY, Timeouts, prepare
from mlxk_tui.ops.hub.errors import RequestContext, map_error

_FILES_AT_ONCE = 4
_TIMEOUTS = Timeouts(connect_s=10, read_s=30)


def main() -> int:
    """Download the files of the job on stdin; return the exit status."""
    die_with_parent(sys.argv[1:])
    job: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    exit_when_stdin_closes()
    context = RequestContext(
        job["endpoint"], job["repo"], job["commit"], job["token"] is not None, job["token"]
    )
    try:
        _download(job)
    except Exception as error:  # noqa: BLE001 - all errors are reported to the parent
        known = map_error(error, context)
        _write_result(known.to_dict())
        return 1
    _write_result({"type": None, "message": ""})
    return 0


def _download(job: dict[str, Any]) -> None:
    prepare(_TIMEOUTS)
    from huggingface_hub import hf_hub_download  # after prepare() has silenced it

    download: Callable[..., object] = hf_hub_download
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        running = [
            pool.submit(
                download,
                job["repo"],
                path,
                revision=job["commit"],
                cache_dir=job["cache"],
                endpoint=job["endpoint"],
                token=job["token"] or False,
                library_name=LIBRARY,
                force_download=path in job["force"],
            )
            for path in job["files"]
        ]
        try:
            for done in as_completed(running):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_result(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    status = main()
    os._exit(status)  # threads of Xet may still be running after an error
