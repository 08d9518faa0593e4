"""prune: unused data is removed, and everything that may be in use is kept."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.results import PruneData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.download.partial_blob import JOURNAL, PARTIAL
from mlxk_tui.ops.remove.prune import GRACE_SECONDS, RESUMABLE_SECONDS, plan_prune, prune
from tests.support.hf_cache import (
    HfCache,
    HfRepo,
    held_by_another_process,
    huggingface_hub_warnings,
    model_files,
    payload_bytes,
    safetensors,
    tree_of,
)
from tests.support.unprivileged import give_away, open_folder, unprivileged

OLD, NEW, OTHER = "a" * 40, "b" * 40, "c" * 40
WEIGHTS = safetensors({"w": ("F32", (64, 64))})
LONG_AGO = time.time() - 10 * GRACE_SECONDS


@pytest.fixture
def hf(hub: Path) -> HfCache:
    return HfCache(hub).create()


@pytest.fixture
def repo(hf: HfCache) -> HfRepo:
    """A model with one old unreferenced revision."""
    repo = hf.repo("org/model")
    repo.add(model_files(fill=b"\1"), commit=OLD, refs=(), modified=LONG_AGO)
    repo.add(model_files(fill=b"\2"), commit=NEW, modified=LONG_AGO + 1)
    return repo


def paths(data: PruneData) -> list[str]:
    return [file.path for file in [*data.blobs, *data.incomplete]]


async def prunes_nothing(cache: Cache) -> bool:
    before = tree_of(cache.root)
    data = await prune(cache)
    return data.message == "Nothing to prune." and data.freed_bytes == 0 and tree_of(cache.root) == before


async def test_unreferenced_revision_is_pruned_and_the_current_one_kept(
    cache: Cache, hf: HfCache, repo: HfRepo
) -> None:
    before = payload_bytes(hf.root)

    plan = await plan_prune(cache)
    assert payload_bytes(hf.root) == before
    done = await prune(cache)

    assert [(found.name, found.hash) for found in plan.revisions] == [("org/model", OLD)]
    assert (plan.dry_run, done.dry_run) == (True, False)
    assert plan.freed_bytes == done.freed_bytes == before - payload_bytes(hf.root)
    assert done.revisions == plan.revisions
    found = snapshot_download("org/model", cache_dir=hf.root, local_files_only=True)
    assert {name: (Path(found) / name).read_bytes() for name in model_files()} == model_files(fill=b"\2")
    assert await prunes_nothing(cache)


async def test_pruned_revisions_match_huggingface_hub(
    cache: Cache, hf: HfCache, repo: HfRepo, tmp_path: Path
) -> None:
    repo.add({**model_files(fill=b"\3"), "sub/extra.txt": b"x"}, commit=OTHER, refs=(), modified=LONG_AGO)
    twin = tmp_path / "hub"
    shutil.copytree(hf.root, twin, symlinks=True)
    detached = [
        revision.commit_hash
        for found in scan_cache_dir(twin).repos
        for revision in found.revisions
        if not revision.refs
    ]
    strategy = scan_cache_dir(twin).delete_revisions(*detached)
    strategy.execute()
    for commit in detached:
        (twin / repo.dir_name / "trees" / f"{commit}.json").unlink()
    trees = sum(repo.tree(commit).stat().st_size for commit in detached)

    done = await prune(cache)

    assert sorted(found.hash for found in done.revisions) == sorted(detached) == [OLD, OTHER]
    assert tree_of(repo.path) == tree_of(twin / repo.dir_name)
    assert done.freed_bytes == strategy.expected_freed_size + trees


async def test_bytes_shared_by_two_unreferenced_revisions_count_once(cache: Cache, hf: HfCache) -> None:
    repo = hf.repo("org/model")
    for commit in (OLD, OTHER):
        repo.add({**model_files(), "a.safetensors": WEIGHTS}, commit=commit, refs=(), modified=LONG_AGO)
    repo.add(model_files(), commit=NEW, modified=LONG_AGO)
    before = payload_bytes(hf.root)

    plan = await plan_prune(cache)
    done = await prune(cache)

    assert len(plan.revisions) == 2
    assert plan.freed_bytes == done.freed_bytes == before - payload_bytes(hf.root)


async def test_without_refs_the_newest_revision_is_kept(cache: Cache, hf: HfCache) -> None:
    repo = hf.repo("org/model")
    repo.add(model_files(fill=b"\1"), commit=OLD, refs=(), modified=LONG_AGO)
    repo.add(model_files(fill=b"\2"), commit=NEW, refs=(), modified=LONG_AGO + 60)

    await prune(cache)

    assert os.listdir(repo.path / "snapshots") == [NEW]
    assert await prunes_nothing(cache)


@pytest.mark.parametrize("content", ["d" * 40, "not a commit", ""])
async def test_invalid_ref_keeps_every_revision(cache: Cache, repo: HfRepo, content: str) -> None:
    repo.ref("main", content)

    assert await prunes_nothing(cache)


async def test_recent_revision_without_a_ref_is_kept(cache: Cache, repo: HfRepo) -> None:
    os.utime(repo.snapshot(OLD))

    assert await prunes_nothing(cache)


async def test_old_orphaned_blobs_are_pruned(cache: Cache, hf: HfCache, repo: HfRepo) -> None:
    repo.ref("v1", OLD)
    orphan, fresh = repo.blobs / ("e" * 64), repo.blobs / ("f" * 64)
    for blob in (orphan, fresh):
        blob.write_bytes(WEIGHTS)
    os.utime(orphan, (LONG_AGO, LONG_AGO))
    (repo.blobs / ".DS_Store").write_bytes(b"x")
    os.utime(repo.blobs / ".DS_Store", (LONG_AGO, LONG_AGO))

    plan = await plan_prune(cache)
    done = await prune(cache)

    assert paths(plan) == paths(done) == [f"{repo.dir_name}/blobs/{orphan.name}"]
    assert done.freed_bytes == len(WEIGHTS)
    assert sorted(path.name for path in (orphan, fresh, repo.blobs / ".DS_Store") if path.exists()) == [
        ".DS_Store",
        fresh.name,
    ]
    assert huggingface_hub_warnings(hf.root) == []


async def test_blob_with_an_unusual_link_is_kept(cache: Cache, repo: HfRepo) -> None:
    repo.ref("v1", OLD)
    blob = repo.blobs / ("e" * 64)
    blob.write_bytes(WEIGHTS)
    os.utime(blob, (LONG_AGO, LONG_AGO))
    (repo.path / "detour").symlink_to(repo.blobs)
    (repo.snapshot(NEW) / "odd.safetensors").symlink_to(repo.path / "detour" / blob.name)

    assert await prunes_nothing(cache)


@pytest.mark.parametrize("ending", [".0123abcd.incomplete", ".incomplete", ".partial"])
async def test_stale_partial_files_are_pruned_and_recent_ones_kept(
    cache: Cache, repo: HfRepo, ending: str
) -> None:
    repo.ref("v1", OLD)
    stale, fresh = repo.blobs / f"{'e' * 64}{ending}", repo.blobs / f"{'f' * 64}{ending}"
    for partial in (stale, fresh):
        partial.write_bytes(b"half")
    os.utime(stale, (LONG_AGO, LONG_AGO))

    plan = await plan_prune(cache)
    done = await prune(cache)

    assert [file.path for file in plan.incomplete] == [f"{repo.dir_name}/blobs/{stale.name}"]
    assert done.incomplete == plan.incomplete
    assert done.freed_bytes == 4
    assert fresh.exists()
    assert not stale.exists()


async def test_pull_paused_for_days_keeps_its_files(cache: Cache, repo: HfRepo) -> None:
    for ending in (PARTIAL, JOURNAL):
        path = repo.path / "blobs" / f"{'e' * 64}{ending}"
        path.write_bytes(b"half of it")
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert await prunes_nothing(cache)  # and so is its revision, which gets a ref only at the end
    for path in (repo.path / "blobs").glob("*.incomplete"):
        os.utime(path, (LONG_AGO - RESUMABLE_SECONDS, LONG_AGO - RESUMABLE_SECONDS))
    done = await prune(cache)
    assert len(done.incomplete) == 2
    assert [found.hash for found in done.revisions] == [OLD]


async def test_repo_with_a_running_download_is_kept(cache: Cache, repo: HfRepo) -> None:
    repo.partial("e" * 64, modified=LONG_AGO)
    (repo.blobs / ("f" * 64)).write_bytes(b"orphan")
    os.utime(repo.blobs / ("f" * 64), (LONG_AGO, LONG_AGO))
    with held_by_another_process(repo.locks / f"{'e' * 64}.lock"):
        assert await prunes_nothing(cache)

    done = await prune(cache)
    assert (len(done.revisions), len(done.blobs), len(done.incomplete)) == (1, 1, 1)


async def test_unreferenced_payloads_are_pruned_and_others_kept(cache: Cache, hf: HfCache) -> None:
    hf.repo("org/a").add(model_files(), shared=True)
    payload = hf.add_payload(WEIGHTS, ["models--org--gone/blobs/x"])
    unknown = hf.add_payload(WEIGHTS + b"!", None)
    before = tree_of(hf.root)

    plan = await plan_prune(cache)
    assert tree_of(hf.root) == before
    done = await prune(cache)

    assert [(file.name, file.path) for file in plan.blobs] == [("shared", str(payload.relative_to(hf.root)))]
    assert done.blobs == plan.blobs
    assert plan.freed_bytes == done.freed_bytes == len(WEIGHTS)
    assert unknown.exists()
    assert huggingface_hub_warnings(hf.root) == []
    snapshot_download("org/a", cache_dir=hf.root, local_files_only=True)


async def test_payload_of_two_unreferenced_revisions_is_freed_with_the_last(
    cache: Cache, hf: HfCache
) -> None:
    for name in ("org/a", "org/b"):
        repo = hf.repo(name)
        repo.add(
            {**model_files(), "x.safetensors": WEIGHTS}, commit=OLD, refs=(), shared=True, modified=LONG_AGO
        )
        repo.add(model_files(), commit=NEW, shared=True, modified=LONG_AGO)
    before = payload_bytes(hf.root)

    plan = await plan_prune(cache)
    done = await prune(cache)

    assert not hf.payload(WEIGHTS).exists()
    assert plan.revisions == done.revisions
    assert done.revisions[1].freed_bytes - done.revisions[0].freed_bytes == len(WEIGHTS)
    # Stale lines of the remaining manifests are also removed, which does not count as freed.
    assert plan.freed_bytes == done.freed_bytes <= before - payload_bytes(hf.root)


async def test_leftovers_of_a_killed_removal_are_pruned(cache: Cache, repo: HfRepo) -> None:
    aside = repo.path / ".removing-0123456789abcdef"
    os.rename(repo.snapshot(OLD), aside)
    (aside / "plain").write_bytes(b"12345")

    plan = await plan_prune(cache)
    done = await prune(cache)

    assert not aside.exists()
    assert [file.path for file in done.incomplete] == [f"{repo.dir_name}/{aside.name}"]
    assert plan.freed_bytes == done.freed_bytes


async def test_links_are_not_followed(cache: Cache, hf: HfCache, tmp_path: Path) -> None:
    outside = HfCache(tmp_path / "outside").repo("org/x")
    outside.add(model_files(fill=b"\1"), commit=OLD, refs=(), modified=LONG_AGO)
    outside.add(model_files(fill=b"\2"), commit=NEW, modified=LONG_AGO)
    outside.partial("e" * 64, modified=LONG_AGO)
    hf.repo("org/link").path.symlink_to(outside.path)
    inner = hf.repo("org/inner")
    inner.path.mkdir()
    for name in ("blobs", "snapshots", "refs"):
        (inner.path / name).symlink_to(outside.path / name)
    before = tree_of(tmp_path / "outside")

    assert await prunes_nothing(cache)
    assert tree_of(tmp_path / "outside") == before


async def test_broken_repo_does_not_affect_others(cache: Cache, hf: HfCache, repo: HfRepo) -> None:
    hf.repo("org/empty").path.mkdir()
    (hf.root / "models--org--file").write_text("x")
    strange = hf.repo("org/strange")
    (strange.path / "blobs" / ("e" * 64)).mkdir(parents=True)
    (strange.path / "refs").write_text("a file")

    done = await prune(cache)

    assert [found.hash for found in done.revisions] == [OLD]


async def test_missing_cache_has_nothing_to_prune(tmp_path: Path) -> None:
    data = await plan_prune(Cache(tmp_path / "nowhere"))

    assert (data.message, data.freed_bytes) == ("Nothing to prune.", 0)


async def test_read_only_repo_is_kept_and_the_others_are_pruned() -> None:
    with open_folder() as folder:
        hf = HfCache(folder / "hub")
        for name in ("org/mine", "org/theirs"):
            for commit, refs in ((OLD, ()), (NEW, ("main",))):
                hf.repo(name).add(model_files(), commit=commit, refs=refs, modified=LONG_AGO)
        (hf.root / ".mlxk-test-cache").touch()
        give_away(hf.root)
        theirs = hf.repo("org/theirs").path
        theirs.chmod(0o555)
        before = tree_of(theirs)
        with unprivileged():
            done = await prune(Cache(hf.root))
            assert [found.name for found in done.revisions] == ["org/mine"]
            assert "Skipped 1 repo" in done.message
            with pytest.raises(OpError) as caught:
                await prune(Cache(hf.root))
        assert caught.value.type is ErrorType.PERMISSION_DENIED
        assert tree_of(theirs) == before


@pytest.mark.parametrize("what", ["revision", "partial", "payload of the store"])
async def test_read_only_cache_is_rejected_and_unchanged(what: str) -> None:
    with open_folder() as folder:
        hf = HfCache(folder / "hub")
        repo = hf.repo("org/model")
        repo.add(model_files(), commit=NEW, modified=LONG_AGO)
        with repo.lock("e" * 64):  # its file stays, as after every download
            pass
        if what == "revision":
            repo.add(model_files(fill=b"\1"), commit=OLD, refs=(), modified=LONG_AGO - 1)
        elif what == "partial":
            repo.partial("e" * 64, modified=LONG_AGO)
        else:
            hf.add_payload(b"\5" * 100, ["models--org--gone/blobs/" + "d" * 64])
        (hf.root / ".mlxk-test-cache").touch()
        give_away(hf.root)
        before = tree_of(hf.root)
        _make_read_only(hf.root)
        with unprivileged(), pytest.raises(OpError) as caught:
            await prune(Cache(hf.root))
        assert caught.value.type is ErrorType.PERMISSION_DENIED
        assert [path for path in before if path not in tree_of(hf.root)] == []


def _make_read_only(root: Path) -> None:
    for folder, _, names in os.walk(root):
        os.chmod(folder, 0o555)
        for name in names:
            if not os.path.islink(os.path.join(folder, name)):
                os.chmod(os.path.join(folder, name), 0o444)


async def test_cache_without_the_sentinel_cannot_be_pruned_in_tests(tmp_path: Path) -> None:
    hf = HfCache(tmp_path / "precious")
    hf.repo("org/model").partial("e" * 64, modified=LONG_AGO)
    before = tree_of(hf.root)

    with pytest.raises(OpError) as caught:
        await prune(Cache(hf.root))

    assert caught.value.type is ErrorType.PERMISSION_DENIED
    assert tree_of(hf.root) == before


async def test_progress_names_the_repos(cache: Cache, repo: HfRepo) -> None:
    events: list[Progress] = []

    await prune(cache, on_event=events.append)

    assert {event.stage for event in events} == {"prune"}
    assert events[0].file == "org/model"


async def test_repo_with_a_linked_snapshot_is_kept(cache: Cache, hf: HfCache) -> None:
    """Files behind the link may be in use."""
    repo = hf.repo("org/linked")
    commit = repo.add(model_files(), modified=LONG_AGO)
    aside = repo.path / "elsewhere"
    repo.snapshot(commit).rename(aside)
    repo.snapshot(commit).symlink_to(aside)
    before = tree_of(repo.path)
    await prune(cache)
    assert tree_of(repo.path) == before


async def test_blob_linked_by_another_repo_is_kept(cache: Cache, hf: HfCache) -> None:
    first, second = hf.repo("org/first"), hf.repo("org/second")
    files = model_files(fill=b"\7")
    first.add(files, refs=(), modified=LONG_AGO)
    first.add(model_files(fill=b"\10"), modified=LONG_AGO + 10)
    second.add(files, modified=LONG_AGO)
    shared = second.blob("model.safetensors", files["model.safetensors"])
    owner = first.blob("model.safetensors", files["model.safetensors"])
    shared.unlink()
    shared.symlink_to(f"../../{first.dir_name}/blobs/{owner.name}")
    await prune(cache)
    assert shared.read_bytes() == files["model.safetensors"]
