"""Watching a cache: each change is reported once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.watch import Watcher
from mlxk_tui.ops.core.errors import OpError
from tests.support.hf_cache import HfCache, model_files


def changed(watcher: Watcher) -> list[str]:
    return [ref.name for ref in watcher.poll().changed]


@pytest.fixture
def watcher(hub: Path) -> Watcher:
    made = HfCache(hub)
    for name in ("org/A", "org/B"):
        made.repo(name).add(model_files())
    watcher = Watcher(Cache(hub))
    assert changed(watcher) == ["org/A", "org/B"]
    return watcher


def test_nothing_is_reported_twice(watcher: Watcher) -> None:
    assert not watcher.poll()


def test_new_repo_new_revision_and_moved_ref_are_reported(watcher: Watcher, hub: Path) -> None:
    repo = HfCache(hub).repo("org/C")
    repo.add(model_files())
    assert changed(watcher) == ["org/C"]
    first = repo.add(model_files(fill=b"\x02"), refs=())
    assert changed(watcher) == ["org/C"]
    repo.ref("main", first)
    assert changed(watcher) == ["org/C"]


def test_file_removed_from_a_snapshot_is_reported(watcher: Watcher, hub: Path) -> None:
    next((hub / "models--org--A" / "snapshots").glob("*/config.json")).unlink()
    assert changed(watcher) == ["org/A"]


def test_started_download_is_reported(watcher: Watcher, hub: Path) -> None:
    HfCache(hub).repo("org/B").partial("ab" * 32)
    assert changed(watcher) == ["org/B"]


def test_removed_repo_is_reported(watcher: Watcher, hub: Path) -> None:
    shutil.rmtree(hub / "models--org--A")
    assert watcher.poll().removed == ("models--org--A",)


def test_removed_cache_is_empty_and_a_file_is_an_error(watcher: Watcher, hub: Path) -> None:
    shutil.rmtree(hub)
    assert set(watcher.poll().removed) == {"models--org--A", "models--org--B"}
    hub.write_text("no folder")
    with pytest.raises(OpError):
        watcher.poll()
    os.unlink(hub)
