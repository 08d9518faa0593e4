"""Verification of checksums: offline, with progress and cancellation."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.catalog.catalog import check_health
from mlxk_tui.ops.contract.results import FindingCode, Health
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.health.verify import verify, verify_repo
from tests.ops.health.test_integrity import RUNTIME
from tests.support.hf_cache import HfCache, HfRepo, model_files
from tests.support.waiting import PATIENCE_S

NAME = "mlx-community/Model-Instruct"


@pytest.fixture
def repo(hub: Path) -> HfRepo:
    return HfCache(hub).repo(NAME)


def _rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("shared", [False, True])
async def test_intact_blobs_pass_and_are_read_once(cache: Cache, repo: HfRepo, shared: bool) -> None:
    files = {**model_files(shards=2), "again.json": model_files()["config.json"]}
    repo.add(files, shared=shared)
    result = await verify(cache, NAME)
    assert result.findings == ()
    assert result.checksums.files == len(files) - 1
    assert result.checksums.bytes == sum(map(len, files.values())) - len(files["again.json"])


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
async def test_changed_byte_is_found_although_sizes_match(cache: Cache, repo: HfRepo, name: str) -> None:
    files = {**model_files(), "config.json": model_files()["config.json"] + b" "}
    repo.add(files)
    _rot(repo.blob(name, files[name]))
    if name == "model.safetensors":
        assert (await check_health(cache, NAME, runtime=RUNTIME)).summary.healthy_count == 1
    result = await verify(cache, NAME)
    assert [(f.code, f.path) for f in result.findings] == [(FindingCode.CHECKSUM_MISMATCH, name)]
    data = await check_health(cache, NAME, verify=True, runtime=RUNTIME)
    assert data.unhealthy[0].status is Health.UNHEALTHY
    assert data.unhealthy[0].findings[0].code is FindingCode.CHECKSUM_MISMATCH
    assert data.unhealthy[0].checksums is not None
    assert data.unhealthy[0].checksums.mismatched == 1


async def test_files_without_a_checksum_are_counted_as_unverifiable(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files())
    (repo.snapshot(commit) / "notes.txt").write_text("a plain file")
    result = await verify(cache, NAME)
    assert (result.checksums.unverifiable, result.findings) == (1, ())


async def test_progress_ends_with_all_bytes(cache: Cache, repo: HfRepo) -> None:
    files = model_files(shards=3)
    repo.add(files)
    events: list[Progress] = []
    await verify(cache, NAME, on_event=events.append)
    total = sum(map(len, files.values()))
    assert (events[-1].bytes_done, events[-1].bytes_total) == (total, total)
    assert events[-1].files_done == events[-1].files_total == len(files)
    assert all(event.stage == "verify" for event in events)


def test_cancelled_verify_returns_partial_results(cache: Cache, repo: HfRepo) -> None:
    commit = repo.add(model_files())
    stop = threading.Event()
    stop.set()
    found = read_repo(cache, cache.find(NAME).ref)
    result = verify_repo(found, found.snapshots[commit], stop)
    assert (result.checksums.files, result.findings) == (0, ())


async def test_cancelled_verify_stops_reading(cache: Cache, repo: HfRepo) -> None:
    files = {**model_files(), "big.bin": b""}
    repo.add(files)
    big = repo.blobs / ("0" * 64)
    with big.open("wb") as stream:
        stream.truncate(200_000_000_000)  # takes minutes to hash, as a sparse file
    (repo.snapshot(next(iter(read_repo(cache, cache.find(NAME).ref).snapshots))) / "huge.bin").symlink_to(
        f"../../blobs/{big.name}"
    )
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_event(event: Progress) -> None:
        loop.call_soon_threadsafe(started.set)

    task = asyncio.create_task(verify(cache, NAME, on_event=on_event))
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    hashing = [thread for thread in threading.enumerate() if thread.name.startswith("verify")]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for thread in hashing:
        await asyncio.to_thread(thread.join, 5)
    assert not any(thread.is_alive() for thread in hashing)
