"""Pulls of several models: each with its own result, and enough space for all of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from mlxk_tui.demo.hub import LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.transfers import DownloadStatus, PullBatchData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.batch import PullBatch
from tests.support.hf_cache import model_files
from tests.support.pulling import sent
from tests.support.waiting import until

FIRST, SECOND, LARGE = "org/First", "mlx-community/Second", "org/Large"
FILES = model_files()
SIZE = sum(map(len, FILES.values()))


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        for name in (FIRST, SECOND):
            server.add_repo(name, {**FILES, "name.txt": name.encode()})
        server.add_repo("org/Gated", FILES, gated="manual", granted=())
        yield server


def batch(server: LocalHub, cache: Cache, *specs: str, **options: object) -> PullBatch:
    return PullBatch(cache, specs, hub=Hub(server.url), **options)  # type: ignore[arg-type]  # any option


async def test_all_models_are_pulled_with_common_progress(server: LocalHub, cache: Cache) -> None:
    events: list[Progress] = []
    data = await batch(server, cache, FIRST, "Second", FIRST, on_event=events.append).run()
    assert [(model.model, model.download_status) for model in data.models] == [
        (FIRST, DownloadStatus.SUCCESS),
        ("Second", DownloadStatus.SUCCESS),
    ]
    assert (data.count, data.failed_count, data.download_status) == (2, 0, DownloadStatus.SUCCESS)
    assert data.bytes_downloaded == sent(server)
    assert data.message == "2 models pulled, 0 already complete."
    done = [event.bytes_done for event in events]
    assert done == sorted(done)
    assert {event.bytes_total for event in events} == {done[-1]}
    again = await batch(server, cache, FIRST, SECOND).run()
    assert again.message == "0 models pulled, 2 already complete."


async def test_model_that_cannot_be_pulled_does_not_stop_the_others(server: LocalHub, cache: Cache) -> None:
    with pytest.raises(OpError) as caught:
        await batch(server, cache, "org/Gated", FIRST, "org/missing", "../x").run()
    assert caught.value.type is ErrorType.ACCESS_DENIED
    assert caught.value.message.startswith("3 of 4 models not pulled. ")
    data = caught.value.data
    assert isinstance(data, PullBatchData)
    statuses = [model.download_status.value for model in data.models]
    assert statuses == ["access_denied", "success", "access_denied"]
    assert (data.count, data.failed_count, data.download_status) == (4, 3, DownloadStatus.ACCESS_DENIED)


async def test_too_little_space_for_all_is_reported_before_the_first_byte(
    server: LocalHub, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SIZE + SIZE // 2  # enough for one of them
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(OpError) as caught:
        await batch(server, cache, FIRST, SECOND).run()
    error = caught.value
    assert error.type is ErrorType.DISK_FULL
    assert (error.facts.available_bytes, (error.facts.needed_bytes or 0) > free) == (free, True)
    assert isinstance(error.data, PullBatchData)
    assert sent(server) == 0
    assert not list(cache.root.glob("models--*"))
    planned = await batch(server, cache, FIRST, SECOND, dry_run=True).run()
    assert "only" in planned.message
    assert [model.download_status.value for model in planned.models] == ["planned", "planned"]


async def test_stopped_batch_has_a_status_for_each_model(server: LocalHub, cache: Cache) -> None:
    server.rate_per_connection = 1_000
    running = batch(server, cache, FIRST, SECOND)
    task = asyncio.ensure_future(running.run())
    await until(lambda: sent(server) > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    data = running.data(DownloadStatus.CANCELLED, "Not started.")
    assert [model.download_status.value for model in data.models] == ["cancelled", "cancelled"]
    assert data.models[1].message == "Not started."
    assert data.failed_count == 2
