"""`search`: the JSON and the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import LocalHub
from tests.headless.running import at_terminal, call, headless
from tests.support.hf_cache import HfCache
from tests.support.pulling import FILES, NAME


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add_repo(NAME, FILES, downloads=1234)
        server.add_repo("acme/Tiny-Torch", {"config.json": b"{}"}, downloads=99_999, gated=True)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_search_returns_the_envelope(server: LocalHub, hub: Path) -> None:
    HfCache(hub).repo(NAME).add(FILES)
    result = headless("search", "tiny", "--json", hub=hub)
    assert (result.status, result.stderr) == (0, "")
    assert [(hit["name"], hit["mlx"], hit["cached"]) for hit in result.data["results"]] == [
        (NAME, True, True),
        ("acme/Tiny-Torch", False, False),
    ]
    assert call("search", "tiny", "--limit", "1", "--json", hub=hub).data["count"] == 1
    assert call("search", "tiny", "--limit", "0", "--json", hub=hub).error["type"] == "validation_error"


def test_search_prints_a_table(server: LocalHub, hub: Path) -> None:
    HfCache(hub).repo(NAME).add(FILES)
    result = call("search", "tiny", hub=hub)
    head, first, second = result.stdout.splitlines()
    assert head.split() == ["Name", "Size", "Downloads", "Likes", "Modified", "Task"]
    assert first.startswith(NAME)
    assert "1,234" in first
    assert first.rstrip().endswith("cached")
    assert second.rstrip().endswith("gated, not MLX")
    assert "pull NAME" in result.stderr
    assert "No model on the hub matches 'zebra'." in call("search", "zebra", hub=hub).stdout


def test_narrow_terminal_shows_whole_names(server: LocalHub, hub: Path) -> None:
    with at_terminal("search", "tiny", hub=hub, columns=44) as terminal:
        status, text = terminal.finish()
    assert status == 0
    lines = [line for line in text.splitlines() if "Tiny" in line]
    assert len(lines) == 2
    assert all(NAME in line or "acme/Tiny-Torch" in line for line in lines)


def test_unreachable_hub_is_a_network_error(hub: Path) -> None:
    result = headless("search", "tiny", "--json", hub=hub, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert (result.status, result.error["type"]) == (1, "network_error")
