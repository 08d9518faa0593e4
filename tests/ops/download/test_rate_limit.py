"""Rate limits: respected over all connections and downloads, changed while they run, never a time-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from mlxk_tui.demo.hub import Generated, LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.download.rate_limit import RateLimit
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.pull import pull
from tests.support.hf_cache import model_files
from tests.support.pulling import content_of
from tests.support.waiting import PATIENCE_S, cancel

SIZE = 2_000_000


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        for name in ("org/one", "org/two"):
            server.add_repo(name, {**model_files(), "big.bin": Generated(SIZE, seed=len(name))})
        yield server


async def timed_pulls(server: LocalHub, cache: Cache, options: dict[str, DownloadOptions]) -> float:
    began = time.monotonic()
    pulls = (pull(cache, name, hub=Hub(server.url), options=given) for name, given in options.items())
    await asyncio.wait_for(asyncio.gather(*pulls), PATIENCE_S)
    return time.monotonic() - began


async def test_limit_holds_for_all_connections(server: LocalHub, cache: Cache) -> None:
    rate = 2_500_000
    seconds = await timed_pulls(server, cache, {"org/one": DownloadOptions(rate_limits=(RateLimit(rate),))})
    assert seconds >= 0.6 * SIZE / rate  # a burst of a quarter of a second is allowed
    assert content_of(cache.root, "org/one")["big.bin"] == server.read("org/one", "big.bin")


async def test_downloads_share_a_common_limit(server: LocalHub, cache: Cache) -> None:
    common = RateLimit(5_000_000)
    options = DownloadOptions(rate_limits=(common, RateLimit()))
    seconds = await timed_pulls(server, cache, {"org/one": options, "org/two": options})
    assert seconds >= 0.6 * 2 * SIZE / 5_000_000


async def test_limit_can_be_lifted_while_downloading(server: LocalHub, cache: Cache) -> None:
    limit = RateLimit(20_000)  # it would take longer than the timeout
    started = asyncio.Event()

    def on_event(event: Progress) -> None:
        if event.bytes_done > 0:
            started.set()

    options = DownloadOptions(rate_limits=(limit,))
    task = asyncio.create_task(
        pull(cache, "org/one", hub=Hub(server.url), options=options, on_event=on_event)
    )
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    limit.rate = None
    await asyncio.wait_for(task, PATIENCE_S)


async def test_limited_download_stops_at_once(server: LocalHub, cache: Cache) -> None:
    started = asyncio.Event()
    options = DownloadOptions(rate_limits=(RateLimit(1_000),))
    task = asyncio.create_task(
        pull(
            cache,
            "org/one",
            hub=Hub(server.url),
            options=options,
            on_event=lambda event: started.set() if event.bytes_done > 0 else None,
        )
    )
    await asyncio.wait_for(started.wait(), PATIENCE_S)
    await asyncio.wait_for(cancel(task), PATIENCE_S)


@pytest.mark.slow
async def test_slow_limit_is_no_time_out(server: LocalHub, cache: Cache) -> None:
    server.add_repo("org/small", {**model_files(), "big.bin": Generated(40_000, seed=1)})
    # Each of eight connections waits longer than the time-outs for its turn.
    options = DownloadOptions(
        rate_limits=(RateLimit(8_000),), connect_s=2.0, read_s=1.0, silence_s=1.5, attempts=1
    )
    await asyncio.wait_for(pull(cache, "org/small", hub=Hub(server.url), options=options), PATIENCE_S)
    assert content_of(cache.root, "org/small")["big.bin"] == server.read("org/small", "big.bin")
