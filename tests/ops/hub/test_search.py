"""search: MLX models first, with details, and whether they are cached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone

import pytest

from mlxk_tui.demo.hub import Fault, LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.hub.search import search
from tests.support.hf_cache import HfCache, safetensors
from tests.support.pulling import FILES

PLAIN = {"config.json": b"{}", "model.safetensors": safetensors()}
WHEN = datetime(2025, 8, 30, 12, 0, tzinfo=timezone.utc)


@pytest.fixture
def server() -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add_repo("big/Tiny-Torch", PLAIN, downloads=900, likes=9)
        server.add_repo("mlx-community/Tiny-4bit", FILES, downloads=50, modified=WHEN)
        server.add_repo("org/Tiny-MLX", FILES, downloads=70, gated=True)
        server.add_repo("org/Other", PLAIN, downloads=5)
        yield server


async def test_mlx_models_come_first_then_the_most_downloaded(server: LocalHub, cache: Cache) -> None:
    HfCache(cache.root).repo("mlx-community/Tiny-4bit").add(FILES)
    data = await search(Hub(server.url), "tiny", cache=cache)
    assert [result.name for result in data.results] == [
        "org/Tiny-MLX",
        "mlx-community/Tiny-4bit",
        "big/Tiny-Torch",
    ]
    gated, cached, torch = data.results
    assert (gated.mlx, gated.gated, gated.cached) == (True, True, False)
    assert (cached.mlx, cached.cached, cached.downloads) == (True, True, 50)
    assert (cached.last_modified, cached.license) == ("2025-08-30T12:00:00Z", "apache-2.0")
    assert cached.size_bytes == 64  # 32 elements of two bytes, according to the safetensors header
    assert (torch.mlx, torch.downloads, torch.likes) == (False, 900, 9)
    assert (data.query, data.count) == ("tiny", 3)


async def test_limit_keeps_mlx_models_and_empty_query_lists_all(server: LocalHub) -> None:
    hub = Hub(server.url)
    assert [result.name for result in (await search(hub, "tiny", limit=1)).results] == ["org/Tiny-MLX"]
    assert (await search(hub, "  ")).count == 4
    assert (await search(hub, "no such thing")).count == 0


@pytest.mark.parametrize(("query", "limit"), [("x" * 300, 5), ("a\x1bb", 5), ("x", 0), ("x", 1000)])
async def test_invalid_queries_are_rejected(query: str, limit: int, server: LocalHub) -> None:
    with pytest.raises(OpError) as caught:
        await search(Hub(server.url), query, limit=limit)
    assert caught.value.type is ErrorType.VALIDATION_ERROR


async def test_hostile_results_are_dropped_or_escaped(server: LocalHub) -> None:
    hits: list[object] = [
        5,
        {"id": "../../etc"},
        {"id": "a\x1b[31m/b"},
        {"id": "org/fine", "downloads": -4, "likes": "many", "lastModified": "yesterday", "tags": [5, "mlx"],
         "pipeline_tag": "text\x1b[31m", "safetensors": {"parameters": {"F16": 10, "X": 3}},
         "usedStorage": 2**80, "gated": "manual", "cardData": {"license": ["mit\x07", "x"]}},
    ]  # fmt: skip
    server.faults.add(Fault("status", path="/api/models", status=200, body=json.dumps(hits), times=None))
    (result,) = (await search(Hub(server.url), "fine")).results
    assert (result.name, result.mlx, result.gated) == ("org/fine", True, True)
    assert (result.downloads, result.likes, result.last_modified, result.size_bytes) == (None,) * 4
    assert (result.task, result.license) == ("text\\x1b[31m", "mit\\x07")


async def test_unreachable_hub_is_an_error() -> None:
    with pytest.raises(OpError) as caught:
        await search(Hub("http://127.0.0.1:9"), "tiny")
    assert caught.value.type is ErrorType.NETWORK_ERROR
