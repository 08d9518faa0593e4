"""`update` as a command: usage, envelope, exit status, text, and Ctrl-C."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import Generated, LocalHub
from tests.headless.running import TIMEOUT, Result, call, started
from tests.support.hf_cache import HfCache, model_files
from tests.support.pulling import sent
from tests.support.waiting import wait_until

ALPHA, BETA, LOCAL = "org/Alpha-4bit", "org/Beta-4bit", "org/Local-4bit"
FILES = model_files()
NEW = {"README.md": b"# A newer card\n"}


@pytest.fixture
def server(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with a newer commit of Alpha than the cache; Local is in the cache only."""
    with LocalHub() as server:
        for name in (ALPHA, BETA):
            HfCache(hub).repo(name).add(FILES, commit=server.add_repo(name, FILES))
        HfCache(hub).repo(LOCAL).add(FILES)
        server.commit(ALPHA, NEW)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_models_or_all_must_be_given(hub: Path) -> None:
    for arguments in ([], [ALPHA, "--all"]):
        result = call("update", *arguments, "--json", hub=hub)
        assert (result.status, result.error["type"]) == (2, "command_error")
        assert "Give the models to update, or --all" in result.error["message"]
        assert result.envelope["command"] == "update"


def test_update_of_all_models_prints_one_envelope_and_its_progress(server: LocalHub, hub: Path) -> None:
    old, new = server.history(ALPHA)[1].oid, server.history(ALPHA)[0].oid
    planned = call("update", "--all", "--dry-run", "--json", hub=hub)
    assert (planned.status, planned.data["dry_run"]) == (0, True)
    assert planned.data["summary"] == {
        "total": 3, "current": 1, "available": 1, "updated": 0, "failed": 0, "unknown": 1
    }  # fmt: skip
    result = call("update", "--all", "--json", "--progress", "json", hub=hub)
    assert result.status == 0
    alpha, _, local = result.data["models"]
    assert (alpha["status"], alpha["commit_hash"], alpha["latest_hash"]) == ("updated", old, new)
    assert (local["status"], local["reason"]) == ("unknown", "not_found")
    stages = [json.loads(line)["stage"] for line in result.stderr.splitlines()]
    assert stages[0] == "check"
    assert "pull" in stages
    assert call("update", "alpha", "--json", hub=hub).data["models"][0]["status"] == "current"
    assert call("update", "gamma", "--json", hub=hub).error["type"] == "model_not_found"


def test_text_lists_what_is_not_up_to_date(server: LocalHub, hub: Path) -> None:
    change = " → ".join(commit.oid[:7] for commit in reversed(server.history(ALPHA)))
    planned = call("update", "--all", "--dry-run", hub=hub)
    assert (planned.status, planned.stderr) == (0, "")
    assert planned.stdout.splitlines() == [
        f"available {ALPHA} — {change}, just now; 15 B to download",
        f"unknown   {LOCAL} — {LOCAL} is not on 127.0.0.1:{server.url.rpartition(':')[2]}.",
        "update: 1 update available (15 B to download), 1 up to date, 1 unknown.",
    ]
    done = call("update", ALPHA, BETA, hub=hub)
    assert done.stdout.splitlines() == [
        f"updated   {ALPHA} — {change}, just now; 15 B downloaded",
        "update: 1 model updated (15 B downloaded), 1 up to date.",
    ]
    assert "'mlxk-headless prune' removes them" in done.stderr


def test_failed_update_is_an_error_with_the_result_of_every_model(server: LocalHub, hub: Path) -> None:
    server.commit(BETA, NEW)
    server.repos[ALPHA].gated, server.repos[ALPHA].granted = "manual", frozenset()
    result = call("update", "--all", hub=hub)
    assert (result.status, result.stdout.splitlines()[-1]) == (
        1,
        "update: 1 model updated (15 B downloaded), 1 failed, 1 unknown.",
    )
    assert result.stderr.startswith(f"Error: {ALPHA} is gated")
    envelope = call("update", "--all", "--json", hub=hub).envelope
    assert (envelope["error"]["type"], envelope["error"]["reason"]) == ("access_denied", "gated")
    assert [model["status"] for model in envelope["data"]["models"]] == ["failed", "current", "unknown"]


@pytest.mark.slow
def test_hub_that_is_offline_or_down_is_one_error(
    server: LocalHub, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stop()
    down = call("update", "--all", hub=hub)
    assert (down.status, down.stderr.count("cannot be reached")) == (1, 1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = call("update", "--all", "--dry-run", "--json", hub=hub)
    assert (offline.status, offline.error["type"]) == (1, "network_error")
    assert {model["reason"] for model in offline.envelope["data"]["models"]} == {"offline"}


@pytest.mark.slow
def test_signal_stops_an_update_and_the_next_one_resumes(server: LocalHub, hub: Path) -> None:
    server.commit(BETA, {"big.bin": Generated(6 << 20, seed=3)})
    server.rate_per_connection = 1 << 16
    server.requests.clear()
    with started("update", "--all", "--json", hub=hub) as process:
        wait_until(lambda: sent(server) > 300_000)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
    stopped = Result(process.returncode, out.decode(), err.decode())
    assert (stopped.status, stopped.error["type"]) == (1, "cancelled")
    data = stopped.envelope["data"]
    assert [model["status"] for model in data["models"]] == ["updated", "available", "unknown"]
    assert data["models"][1]["bytes_downloaded"] > 0
    server.rate_per_connection = None
    resumed = call("update", BETA, "--json", hub=hub).data["models"][0]
    assert (resumed["status"], resumed["bytes_downloaded"] < 6 << 20) == ("updated", True)
