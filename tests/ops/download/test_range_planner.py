"""Lengths of ranges, and when one is split, with fast, slow and far hubs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxk_tui.ops.download.blob_download import BlobDownload
from mlxk_tui.ops.download.layout import DownloadLayout
from mlxk_tui.ops.download.range_planner import RangePlanner, RangeTask
from mlxk_tui.ops.hub.remote_files import RemoteFile

MB = 1_000_000


@pytest.fixture
def job(tmp_path: Path) -> BlobDownload:
    file = RemoteFile("model.safetensors", 10_000 * MB, "a" * 64, "sha256")
    return BlobDownload([file], DownloadLayout(tmp_path, "c" * 40, links=True), redownload=False)


def measured(rates: dict[int, float], *, total: int = 10_000 * MB) -> RangePlanner:
    """Return a planner that has measured these rates and a round trip of 0.1 seconds."""
    planner = RangePlanner(total)
    planner.record_response(0.1)
    for connection, rate in rates.items():
        planner.record_range(connection, int(rate), 1.0)
    return planner


def running(job: BlobDownload, remaining: dict[int, int]) -> list[RangeTask]:
    """Return the ranges of connections that have received their first byte."""
    tasks = []
    for connection, count in remaining.items():
        task = RangeTask(job, connection * 100 * MB, connection * 100 * MB + count, connection, 0.0)
        task.receiving = True
        tasks.append(task)
    return tasks


def test_small_repo_is_divided_evenly_at_once(job: BlobDownload) -> None:
    unclaimed = 24 * MB
    tasks: list[RangeTask] = []
    for connection in range(8):
        length = min(unclaimed, RangePlanner(24 * MB).length(connection, unclaimed, tasks, 8))
        tasks += running(job, {connection: length})
        unclaimed -= length
    assert unclaimed == 0
    assert max(task.remaining for task in tasks) - min(task.remaining for task in tasks) < 8


def test_range_takes_a_few_seconds() -> None:
    for rate in (0.1 * MB, 1 * MB, 12 * MB):
        length = measured({0: rate}).length(0, 5_000 * MB, [], 8)
        assert 2 <= length / rate <= 4


def test_slow_connection_gets_less_than_a_fast_one() -> None:
    planner = measured({0: 1 * MB, 1: 9 * MB})
    slow, fast = (planner.length(connection, 10 * MB, [], 2) for connection in (0, 1))
    assert slow * 5 < fast


def test_last_ranges_let_all_connections_finish_together(job: BlobDownload) -> None:
    planner = measured(dict.fromkeys(range(4), 2.0 * MB))
    tasks = running(job, {1: 3 * MB, 2: 3 * MB, 3: 3 * MB})
    assert planner.length(0, 1 * MB, tasks, 4) >= 1 * MB
    assert planner.length(0, 7 * MB, tasks, 4) == pytest.approx(4 * MB, rel=0.01)


def test_range_of_a_slow_connection_is_split_so_that_both_parts_finish_together(job: BlobDownload) -> None:
    planner = measured({0: 12 * MB, 1: 0.2 * MB})
    split = planner.split(0, running(job, {1: 20 * MB}))
    assert split is not None
    task, border = split
    seconds = (border - task.offset) / (0.2 * MB)
    assert seconds == pytest.approx((task.end - border) / (12 * MB) + 0.3, abs=0.2)


@pytest.mark.parametrize(
    ("remaining", "why"),
    [
        ({1: 3 * MB}, "it finishes before a new connection would receive anything"),
        ({1: 200_000}, "almost nothing of it is left"),
        ({}, "there is none"),
    ],
)
def test_range_is_not_split(job: BlobDownload, remaining: dict[int, int], why: str) -> None:
    assert measured({0: 12 * MB, 1: 4 * MB}).split(0, running(job, remaining)) is None, why


def test_splits_discard_only_a_small_share(job: BlobDownload) -> None:
    """Bytes on their way to the connection that loses the end of its range are lost."""
    planner = measured({0: 12 * MB, 1: 12 * MB}, total=300 * MB)
    splits = 0
    while planner.split(0, running(job, {1: 60 * MB})) is not None:
        splits += 1
    assert 0 < splits * 12 * MB * 0.1 <= 0.01 * 300 * MB


def test_connection_without_a_known_rate_splits_nothing(job: BlobDownload) -> None:
    assert RangePlanner(300 * MB).split(0, running(job, {1: 60 * MB})) is None
