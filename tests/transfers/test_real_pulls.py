"""The queue with real pulls from the local hub, also in a process that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import Fault, Generated, LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.transfers.jobs import Pull, TransferState
from mlxk_tui.transfers.queue import TransferQueue
from mlxk_tui.transfers.runners import runners
from tests.support.hf_cache import model_files
from tests.support.waiting import until

NAME = "org/Large-4bit"
SIZE = 16_000_000

OTHER = """
import asyncio, sys
from pathlib import Path
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.transfers.jobs import Pull
from mlxk_tui.transfers.queue import TransferQueue
from mlxk_tui.transfers.runners import runners

async def main():
    path, root, url, name = sys.argv[1:]
    hub = Hub(url)
    queue = TransferQueue(Path(path), runners(Cache(Path(root)), lambda: hub))
    queue.changed.subscribe(lambda change: [print(t.bytes_done, flush=True) for t in queue.transfers])
    await queue.start()
    queue.add(Pull(name))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def local() -> Iterator[LocalHub]:
    with LocalHub() as made:
        made.add_repo(NAME, {**model_files(), "extra.bin": Generated(SIZE, 1)})
        yield made


def killed_on_the_way(path: Path, cache: Cache, local: LocalHub) -> int:
    """Pull in a process that is killed after a quarter of the bytes; return the bytes it reported."""
    command = [sys.executable, "-c", OTHER, str(path), str(cache.root), local.url, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        for line in other.stdout:
            if int(line) > SIZE / 4:
                other.send_signal(signal.SIGKILL)
                return int(line)
    raise AssertionError("it never came that far")


@pytest.mark.slow
async def test_pull_of_a_killed_process_resumes(local: LocalHub, cache: Cache, tmp_path: Path) -> None:
    path = tmp_path / "transfers.json"
    local.rate_per_connection = 400_000
    had = killed_on_the_way(path, cache, local)
    local.rate_per_connection = None
    begun = len(local.requests)
    hub = Hub(local.url)
    queue = TransferQueue(path, runners(cache, lambda: hub))
    await queue.start()
    try:
        (transfer,) = queue.transfers
        assert transfer.job == Pull(NAME)
        await until(lambda: transfer.state is TransferState.DONE)
    finally:
        await queue.close()
    sent = sum(request.bytes_sent for request in list(local.requests)[begun:])
    assert sent < SIZE - had * 0.8
    snapshot = next((cache.root / "models--org--Large-4bit" / "snapshots").iterdir())
    assert (snapshot / "extra.bin").read_bytes() == local.read(NAME, "extra.bin")


async def test_missing_repo_fails_at_once(local: LocalHub, cache: Cache, tmp_path: Path) -> None:
    hub = Hub(local.url)
    queue = TransferQueue(tmp_path / "transfers.json", runners(cache, lambda: hub))
    await queue.start()
    try:
        transfer, _ = queue.add(Pull("org/nothing"))
        await until(lambda: transfer.state is TransferState.FAILED)
        assert transfer.failure is not None
        assert transfer.failure.type is ErrorType.ACCESS_DENIED
        assert transfer.attempts == 1
    finally:
        await queue.close()
    assert not (cache.root / "models--org--nothing").exists()


async def test_failing_hub_is_retried_until_it_answers(local: LocalHub, cache: Cache, tmp_path: Path) -> None:
    fault = local.faults.add(Fault(kind="cut", path="*extra.bin", times=None, after_bytes=0))
    hub = Hub(local.url)
    queue = TransferQueue(tmp_path / "transfers.json", runners(cache, lambda: hub), delays=(0.05,) * 50)
    await queue.start()
    try:
        transfer, _ = queue.add(Pull(NAME))
        await until(lambda: local.faults.hits(fault) > 0)
        local.faults.clear()
        await until(lambda: transfer.state is TransferState.DONE)
    finally:
        await queue.close()
