"""Which snapshots are shared, and with which checksums."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.patterns import FilePatterns
from mlxk_tui.ops.pull.pull import pull
from mlxk_tui.ops.share.shared_models import SharedModels
from tests.support.hf_cache import HfCache, git_sha1, model_files
from tests.support.pulling import FILES, NAME
from tests.support.sharing import add_model, sharing


async def test_file_list_is_that_of_the_hub(cache: Cache) -> None:
    with LocalHub() as server:
        server.add_repo(NAME, FILES)
        hub = Hub(server.url)
        await pull(cache, NAME, hub=hub)
        original = await hub.files(NAME, "main")
    with sharing(cache.root) as share:
        assert await Hub(share.url).files(NAME, "main") == original


def test_files_without_links_are_hashed(hub: Path) -> None:
    commit = add_model(hub, NAME, FILES)
    snapshot = HfCache(hub).repo(NAME).snapshot(commit)
    copy = snapshot.with_name("copy")
    shutil.copytree(snapshot, copy, symlinks=False)
    shutil.rmtree(snapshot)
    copy.rename(snapshot)
    shared = SharedModels(Cache(hub)).find(NAME)
    # Whether a small file is an LFS object is not known without its blob's name; its git hash is right, too.
    assert {file.path: file.etag for file in shared.files} == {
        path: git_sha1(data) for path, data in FILES.items()
    }


def test_names_that_are_not_unicode_are_left_out(hub: Path) -> None:
    commit = add_model(hub, NAME, FILES)
    name = os.fsencode(HfCache(hub).repo(NAME).snapshot(commit)) + b"/\xff.txt"
    try:
        os.symlink(os.fsencode("../../blobs/" + git_sha1(FILES["README.md"])), name)
    except OSError:
        pytest.skip("the file system refuses such names")
    assert {file.path for file in SharedModels(Cache(hub)).find(NAME).files} == FILES.keys()


def test_second_look_reads_nothing_unless_the_repo_changed(hub: Path) -> None:
    past = 1_700_000_000.0
    commit = add_model(hub, NAME, FILES, modified=past)
    models = SharedModels(Cache(hub))
    first = models.find(NAME)
    assert models.find(NAME, commit) == first
    HfCache(hub).repo(NAME).ref("v2", commit)
    assert models.find(NAME, "v2") == first
    newer = add_model(hub, NAME, {**FILES, "new.txt": b"new"})
    assert models.find(NAME).commit == newer
    assert models.find(NAME, "v2").commit == commit
    shutil.rmtree(HfCache(hub).repo(NAME).snapshot(newer))
    with pytest.raises(OpError) as caught:
        models.find(NAME, "main")
    assert caught.value.type is ErrorType.MODEL_NOT_FOUND


def test_each_revision_is_checked_by_itself(hub: Path) -> None:
    broken = {**model_files(fill=b"\x02"), "model.safetensors": b"\x01"}
    old = add_model(hub, NAME, broken, refs=("old",))
    commit = add_model(hub, NAME, FILES)
    models = SharedModels(Cache(hub))
    assert models.find(NAME).commit == commit
    for revision in ("old", old):
        with pytest.raises(OpError) as caught:
            models.find(NAME, revision)
        assert caught.value.type is ErrorType.MODEL_NOT_FOUND
    for revision in ("none", commit[:12], "../refs/main", "0" * 40):
        with pytest.raises(OpError) as caught:
            models.find(NAME, revision)
        assert caught.value.type is ErrorType.REVISION_NOT_FOUND


async def test_partial_pull_is_shared_if_the_model_can_run(cache: Cache, tmp_path: Path) -> None:
    with LocalHub() as server:
        server.add_repo(NAME, FILES)
        await pull(cache, NAME, hub=Hub(server.url), patterns=FilePatterns(exclude=("README.md",)))
        shared = SharedModels(cache).find(NAME)
        assert {file.path for file in shared.files} == FILES.keys() - {"README.md"}
        assert shared.left_out == {"README.md"}
        other = Cache(tmp_path)
        await pull(other, NAME, hub=Hub(server.url), patterns=FilePatterns(include=("*.json",)))
        assert [error.reason for error in SharedModels(other).not_shared().values()] == ["unhealthy"]


def test_empty_or_missing_cache_shares_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        models = SharedModels(Cache(folder))
        assert (models.all(), models.not_shared()) == ([], {})
        with pytest.raises(OpError):
            models.find(NAME)
