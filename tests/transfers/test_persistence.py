"""The queue's file: restarts, damage, a second process, and a full disk."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.transfers.jobs import Failure, Pull, Push, Transfer, TransferState
from mlxk_tui.transfers.queue import TransferQueue
from mlxk_tui.transfers.queue_file import QueueFile, state_file, to_document
from tests.support.waiting import until
from tests.transfers.conftest import QueueMaker, Works, put, states


async def test_running_transfers_resume_and_paused_ones_stay_paused(
    make_queue: QueueMaker, works: Works
) -> None:
    before = make_queue(parallel=1)
    await before.start()
    first, second, third = put(before, "o/a", "o/b", "o/c")
    before.pause(second.id)
    await until(lambda: works.began == ["o/a"])
    works.report("o/a", 60, 100)
    await until(lambda: first.bytes_done == 60)
    await before.close()
    assert works.stopped == ["o/a"]

    after = make_queue(parallel=1)
    await after.start()
    assert states(after) == [("o/a", "running"), ("o/b", "paused"), ("o/c", "waiting")]
    assert [t.id for t in after.transfers] == [first.id, second.id, third.id]
    assert after.transfers[0].bytes_done == 60
    await until(lambda: works.began == ["o/a", "o/a"])


async def test_transfers_are_stored_completely(tmp_path: Path) -> None:
    store = QueueFile(tmp_path / "transfers.json")
    push = Transfer(
        "1",
        Push("/a\udcff/folder", "org/model", "dev", "a message", create=True),
        TransferState.FAILED,
        added=5.0,
        ended=7.5,
        failure=Failure(ErrorType.AUTH_ERROR, "No token.", Remedy.LOG_IN, ErrorFacts(name="org/model")),
        attempts=2,
        bytes_done=3,
        bytes_total=4,
    )
    pull = Transfer(
        "2",
        Pull("org/model@v1", ("a.safetensors",)),
        TransferState.DONE,
        result="It is there.",
        files_done=2,
        files_total=2,
    )
    store.write(to_document([push, pull]))
    again = store.read(repair=True)
    assert again.problem is None
    assert to_document(again.transfers) == to_document([push, pull])
    assert [t.job for t in again.transfers] == [push.job, pull.job]
    assert [t.failure for t in again.transfers] == [push.failure, None]


async def test_file_without_remedies_is_read(tmp_path: Path) -> None:
    failed = Transfer("1", Pull("o/a"), TransferState.FAILED, failure=Failure(ErrorType.DISK_FULL, "Full."))
    document = to_document([failed])
    document["transfers"][0]["failure"] = {"type": "disk_full", "message": "Full. Free some space."}
    path = tmp_path / "transfers.json"
    path.write_text(json.dumps(document))
    stored = QueueFile(path).read(repair=True)
    assert stored.problem is None
    assert [t.failure for t in stored.transfers] == [Failure(ErrorType.DISK_FULL, "Full. Free some space.")]


async def test_file_is_private_to_its_owner(queue: TransferQueue, tmp_path: Path) -> None:
    path = tmp_path / "state" / "transfers.json"
    put(queue, "o/a")
    await until(path.exists)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_suffix(".lock").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b'{"version":1}', b'{"version":0,"transfers":[]}', b"[" * 100_000],
    ids=["empty", "cut", "binary", "a list", "no transfers", "no version", "deep"],
)
async def test_damaged_file_is_set_aside_and_reported(
    make_queue: QueueMaker, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "transfers.json"
    path.write_bytes(content)
    queue = make_queue(path=path)
    await queue.start()
    assert queue.problem is not None
    assert "is damaged. The file was renamed to" in queue.problem
    assert path.with_suffix(".bad.json").read_bytes() == content
    put(queue, "o/a")
    await until(lambda: path.exists() and "o/a" in path.read_text())


async def test_invalid_entry_does_not_affect_the_others(make_queue: QueueMaker, tmp_path: Path) -> None:
    path = tmp_path / "transfers.json"
    document = to_document([Transfer("1", Pull("o/a"), TransferState.PAUSED), Transfer("2", Pull("o/b"))])
    document["transfers"][1]["state"] = "flying"
    path.write_text(json.dumps(document))
    queue = make_queue(path=path)
    await queue.start()
    assert states(queue) == [("o/a", "paused")]
    assert queue.problem is not None
    assert path.with_suffix(".bad.json").exists()


async def test_file_of_a_newer_version_is_kept(make_queue: QueueMaker, tmp_path: Path) -> None:
    path = tmp_path / "transfers.json"
    path.write_text('{"version": 99, "transfers": []}')
    queue = make_queue(path=path)
    await queue.start()
    assert queue.problem is not None
    assert "newer version" in queue.problem


async def test_queue_works_without_a_writable_folder_and_reports_it(
    make_queue: QueueMaker, works: Works, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    queue = make_queue(path=tmp_path / "file" / "transfers.json")
    await queue.start()
    assert queue.problem is not None
    assert "can't be saved and will be lost on exit" in queue.problem
    put(queue, "o/a")
    await until(lambda: works.began == ["o/a"])


def test_each_cache_has_its_own_queue(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    same = {state_file(tmp_path, tmp_path / "real"), state_file(tmp_path, tmp_path / "link")}
    assert len(same) == 1
    assert state_file(tmp_path, tmp_path / "other") not in same


OTHER = """
import asyncio, sys
from pathlib import Path
from mlxk_tui.transfers.jobs import Pull
from mlxk_tui.transfers.queue import TransferQueue

async def run(job, on_event):
    print("runs", job.spec, flush=True)
    await asyncio.Event().wait()

async def main():
    queue = TransferQueue(Path(sys.argv[1]), {Pull: run})
    await queue.start()
    if len(sys.argv) > 2:
        queue.add(Pull(sys.argv[2]))
    await asyncio.Event().wait()

asyncio.run(main())
"""


def other_process(path: Path, spec: str) -> subprocess.Popen[str]:
    """Start a process that runs the queue of a file and adds a pull."""
    command = [sys.executable, "-c", OTHER, str(path), spec]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_second_process_follows_the_queue_and_takes_over(
    make_queue: QueueMaker, works: Works, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "transfers.json"
    with other_process(path, "o/a") as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "runs o/a\n"
            queue = make_queue()
            await queue.start()
            assert queue.read_only_reason is not None
            await until(lambda: states(queue) == [("o/a", "running")])
            assert not works.began
            assert not queue.interruptible
            for act in (
                lambda: queue.add(Pull("o/b")),
                lambda: queue.pause(queue.transfers[0].id),
                queue.clear_finished,
            ):
                with pytest.raises(OpError) as refused:
                    act()
                assert refused.value.type is ErrorType.LOCKS_PRESENT
        finally:
            other.kill()
    await until(lambda: works.began == ["o/a"])
    assert queue.read_only_reason is None


async def test_queue_of_a_killed_process_resumes(
    make_queue: QueueMaker, works: Works, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "transfers.json"
    with other_process(path, "o/a") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "runs o/a\n"
        await until(lambda: path.exists() and '"running"' in path.read_text())
        other.kill()
    path.with_name(".transfers-abc.tmp").write_text("{")  # as if it was writing
    queue = make_queue()
    await queue.start()
    assert states(queue) == [("o/a", "running")]
    await until(lambda: works.began == ["o/a"])
    await queue.close()
    assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]
