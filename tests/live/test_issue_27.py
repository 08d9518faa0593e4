"""The strict health rules on real models, copied from the user's cache (opt-in: -m issue27).

The user's cache is only read; the tests damage a copy in their own cache. Variables:

    MLXK2_USER_HF_HOME or HF_HOME   the Hugging Face home to copy from
    MLXK2_ISSUE27_MODEL             a healthy model in it; default: the smallest one
    MLXK2_ISSUE27_INDEX_MODEL       a model with a weight index and at least two shards; default:
                                    MLXK2_ISSUE27_MODEL or the smallest such model
    MLXK2_SUBSET_COUNT              number of shards to copy, smallest first (default 1)
    MLXK2_MIN_FREE_MB               free disk space that must remain, in megabytes (default 512)
    MLXK2_BOOTSTRAP_INDEX           download a missing index; not supported yet
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.repo import Snapshot
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.catalog.catalog import check_health, list_models
from mlxk_tui.ops.contract.results import FindingCode, Health, HealthEntry
from mlxk_tui.ops.core.errors import OpError

pytestmark = [pytest.mark.issue27, pytest.mark.wet]

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


@pytest.fixture(autouse=True)
def no_stored_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not store verdicts: these tests change a model within a second."""
    monkeypatch.setenv("MLXK_VERDICTS", "off")


@pytest.fixture
def users(user_hf_home: Path) -> Cache:
    """The user's cache, read-only."""
    return Cache(user_hf_home / "hub")


def snapshot_of(cache: Cache, name: str) -> Snapshot:
    """Return the selected snapshot of a model in the user's cache, or skip."""
    try:
        snapshot = read_repo(cache, cache.find(name).ref).selected
    except OpError as error:
        pytest.skip(f"MLXK2_ISSUE27_MODEL: {error.message}")
    if snapshot is None:
        pytest.skip(f"{name} has no snapshot in {cache.root}")
    return snapshot


async def healthy_model(cache: Cache) -> str:
    """Return the name of a healthy model: the given one, or the smallest."""
    asked = os.environ.get("MLXK2_ISSUE27_MODEL")
    if asked:
        snapshot_of(cache, asked)  # skips if it is missing
        return cache.find(asked).ref.name
    found = [model for model in (await list_models(cache)).models if model.health is Health.HEALTHY]
    if not found:
        pytest.skip(f"there is no sound model in {cache.root}; pull a small one")
    return min(found, key=lambda model: model.size_bytes).name


@dataclass(frozen=True)
class Indexed:
    """A copy of a model with an index in the test's cache."""

    cache: Cache
    name: str
    snapshot: Path
    index: Path
    copied: tuple[str, ...]
    """Shards that were copied."""
    missing: tuple[str, ...]
    """Shards that the index names and that were not."""

    async def check(self) -> HealthEntry:
        """Return the health of the copy."""
        data = await check_health(self.cache, self.name)
        return (data.healthy + data.unhealthy)[0]

    async def codes(self) -> set[FindingCode]:
        """Return the codes of the findings; the copy must be unhealthy."""
        entry = await self.check()
        assert entry.status is Health.UNHEALTHY
        return {finding.code for finding in entry.findings}

    def complete(self) -> None:
        """Remove shards that were not copied from the index."""
        content = json.loads(self.index.read_text())
        content["weight_map"] = {k: v for k, v in content["weight_map"].items() if v in self.copied}
        self.index.write_text(json.dumps(content))


def shards_of(snapshot: Snapshot) -> tuple[str, list[str]] | None:
    """Return the name of a snapshot's index and its existing shards, smallest first."""
    files = {file.name: file for file in snapshot.files if file.target is not None and file.size}
    for name in INDEXES:
        if name in files:
            target = files[name].target
            assert target is not None
            named = set(json.loads(Path(target).read_text())["weight_map"].values())
            there = sorted((shard for shard in named if shard in files), key=lambda n: files[n].size or 0)
            if len(named) > 1 and there:
                return name, there
    return None


@pytest.fixture
async def indexed(users: Cache, cache: Cache) -> Indexed:
    """Copy config, tokenizer, index and a few shards of a model to the test's cache."""
    asked = os.environ.get("MLXK2_ISSUE27_INDEX_MODEL") or os.environ.get("MLXK2_ISSUE27_MODEL")
    candidates = [asked] if asked else [
        model.name for model in sorted((await list_models(users)).models, key=lambda m: m.size_bytes)
    ]  # fmt: skip
    for name in candidates:
        snapshot = snapshot_of(users, name)
        found = shards_of(snapshot)
        if found is not None:
            return copy(users, snapshot, *found, cache)
    reason = f"no index with two shards or more in {asked or users.root}; pick another model"
    if os.environ.get("MLXK2_BOOTSTRAP_INDEX"):
        reason += " (MLXK2_BOOTSTRAP_INDEX needs transfers, which this version does not have)"
    pytest.skip(reason)


def copy(users: Cache, source: Snapshot, index: str, shards: list[str], cache: Cache) -> Indexed:
    """Copy a minimal subset of a snapshot; skip if the disk is too full."""
    files = {file.name: file for file in source.files if file.target is not None}
    content = json.loads(Path(str(files[index].target)).read_text())
    named = sorted(set(content["weight_map"].values()))
    count = max(1, min(int(os.environ.get("MLXK2_SUBSET_COUNT", "1")), len(named) - 1))
    chosen = tuple(shards[:count])
    small = [n for n in files if n.endswith((".json", ".txt", ".model", ".jinja")) and n not in named]
    needed = sum(files[name].size or 0 for name in (*chosen, *small))
    spare = int(os.environ.get("MLXK2_MIN_FREE_MB", "512")) * 1_000_000
    free = shutil.disk_usage(cache.root).free
    if free < needed + spare:
        pytest.skip(f"not enough free space: {needed / 1e6:.0f} MB to copy, {free / 1e6:.0f} MB free")
    name = "issue27/copy"
    repo = cache.root / "models--issue27--copy"
    commit = source.hash or "0" * 40
    snapshot = repo / "snapshots" / commit
    for each in (*chosen, *small):
        target = snapshot / each
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(files[each].target), target)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    missing = tuple(shard for shard in named if shard not in chosen)
    return Indexed(cache, name, snapshot, snapshot / index, chosen, missing)


async def test_healthy_model_in_the_users_cache_is_healthy(users: Cache) -> None:
    name = await healthy_model(users)
    entry = (await check_health(users, name)).healthy
    assert [each.name for each in entry] == [name]


async def test_shards_missing_from_the_snapshot_are_reported(indexed: Indexed) -> None:
    assert FindingCode.SHARD_MISSING in await indexed.codes()
    reason = (await indexed.check()).reason
    assert indexed.missing[0] in reason or str(len(indexed.missing)) in reason


async def test_model_with_all_shards_is_healthy(indexed: Indexed) -> None:
    indexed.complete()
    entry = await indexed.check()
    assert (entry.status, entry.findings[:1] if entry.status is Health.UNHEALTHY else []) == (
        Health.HEALTHY,
        [],
    )


async def test_deleted_shard_is_unhealthy(indexed: Indexed) -> None:
    indexed.complete()
    (indexed.snapshot / indexed.copied[0]).unlink()
    assert await indexed.codes() & {FindingCode.SHARD_MISSING, FindingCode.WEIGHTS_MISSING}


async def test_truncated_shard_is_unhealthy(indexed: Indexed) -> None:
    if not indexed.copied[0].endswith(".safetensors"):
        pytest.skip("the length of a PyTorch file is unknown; choose a model with safetensors")
    indexed.complete()
    shard = indexed.snapshot / indexed.copied[0]
    os.truncate(shard, shard.stat().st_size - 1)
    assert FindingCode.WEIGHTS_TRUNCATED in await indexed.codes()


async def test_empty_shard_is_unhealthy(indexed: Indexed) -> None:
    indexed.complete()
    os.truncate(indexed.snapshot / indexed.copied[0], 0)
    assert FindingCode.WEIGHTS_EMPTY in await indexed.codes()


async def test_git_lfs_pointer_instead_of_a_shard_is_unhealthy(indexed: Indexed) -> None:
    indexed.complete()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456789\n"
    (indexed.snapshot / indexed.copied[0]).write_text(pointer)
    assert FindingCode.LFS_POINTER in await indexed.codes()


async def test_complete_shards_without_an_index_are_unhealthy(indexed: Indexed) -> None:
    indexed.index.unlink()
    assert FindingCode.SHARD_WITHOUT_INDEX in await indexed.codes()
