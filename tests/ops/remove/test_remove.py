"""rm: what it removes, what it keeps, and whether huggingface_hub accepts the result."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from hypothesis import HealthCheck, example, given, settings, strategies as st

from mlxk_tui.ops.cache.access_record import RepoAccess, write_access
from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.deletion import SENTINEL
from mlxk_tui.ops.catalog.catalog import check_health
from mlxk_tui.ops.contract.results import RmData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.remove.remove import plan_remove, plan_remove_ref, remove
from tests.support.cancelling import cancelled_at_first_event
from tests.support.hf_cache import (
    HfCache,
    HfRepo,
    held_by_another_process,
    model_files,
    payload_bytes,
    safetensors,
    tree_of,
)
from tests.support.unprivileged import give_away, open_folder, unprivileged

OLD, NEW = "a" * 40, "b" * 40
WEIGHTS = safetensors({"w": ("F32", (64, 64))})


@pytest.fixture
def hf(hub: Path) -> HfCache:
    return HfCache(hub).create()


@pytest.fixture
def repo(hf: HfCache) -> HfRepo:
    """Two revisions that share all files except the weights, and another repo that must survive."""
    repo = hf.repo("org/model")
    repo.add(model_files(fill=b"\1"), commit=OLD, refs=["v1"])
    repo.add(model_files(fill=b"\2"), commit=NEW)
    hf.repo("org/neighbor").add(model_files())
    return repo


async def rm(cache: Cache, spec: str, *, force: bool = False) -> RmData:
    return await remove(cache, await plan_remove(cache, spec), force=force)


@contextmanager
def refused(error_type: ErrorType) -> Iterator[None]:
    with pytest.raises(OpError) as caught:
        yield
    assert caught.value.type is error_type, caught.value.message


def test_sentinel_name_is_the_same_everywhere() -> None:
    from tests import conftest

    assert conftest.SENTINEL == SENTINEL


async def test_model_is_removed_with_its_locks_and_nothing_else(
    cache: Cache, hf: HfCache, repo: HfRepo
) -> None:
    neighbor = tree_of(hf.repo("org/neighbor").path)
    before = payload_bytes(hf.root)
    locks = len(list(repo.locks.iterdir()))

    plan = await plan_remove(cache, "org/model")
    result = await remove(cache, plan)

    assert not repo.path.exists()
    assert not repo.locks.exists()
    assert tree_of(hf.repo("org/neighbor").path) == neighbor
    assert (plan.revision, plan.revisions, plan.files) == (None, 2, 2 * len(model_files()))
    assert plan.freed_bytes == result.freed_bytes == before - payload_bytes(hf.root)
    assert (result.action, result.lock_files_cleaned) == ("deleted", locks)
    assert [found.repo_id for found in scan_cache_dir(hf.root).repos] == ["org/neighbor"]


async def test_planning_changes_nothing(cache: Cache, hf: HfCache, repo: HfRepo) -> None:
    before = tree_of(hf.root)

    plan = await plan_remove(cache, "model")

    assert (plan.ref.name, plan.exact) == ("org/model", False)
    assert tree_of(hf.root) == before


@pytest.mark.parametrize("revision", ["v1", OLD, OLD[:3]])
async def test_revision_is_removed_with_the_blobs_that_only_it_uses(
    cache: Cache, hf: HfCache, repo: HfRepo, revision: str
) -> None:
    before = payload_bytes(hf.root)

    plan = await plan_remove(cache, f"org/model@{revision}")
    result = await remove(cache, plan)

    assert (plan.revision, plan.revisions, plan.files) == (OLD, 1, len(model_files()))
    assert not repo.snapshot(OLD).exists()
    assert not repo.tree(OLD).exists()
    assert not (repo.path / "refs" / "v1").exists()
    assert not repo.blob("model.safetensors", model_files(fill=b"\1")["model.safetensors"]).exists()
    assert plan.freed_bytes == result.freed_bytes == before - payload_bytes(hf.root)
    assert sorted(os.listdir(repo.path)) == ["blobs", "refs", "snapshots", "trees"]
    found = snapshot_download("org/model", cache_dir=hf.root, local_files_only=True)
    assert {name: (Path(found) / name).read_bytes() for name in model_files()} == model_files(fill=b"\2")


@pytest.mark.parametrize("revision", [OLD, NEW])
@pytest.mark.parametrize("shared", [False, True])
async def test_result_matches_a_deletion_by_huggingface_hub(
    cache: Cache, hf: HfCache, tmp_path: Path, revision: str, shared: bool
) -> None:
    repo = hf.repo("org/model")
    repo.add(model_files(fill=b"\1"), commit=OLD, refs=["v1", "refs/pr/1"], shared=shared)
    repo.add({**model_files(fill=b"\2"), "sub/x.txt": b"x"}, commit=NEW, shared=shared)
    hf.repo("org/twin").add(model_files(fill=b"\1"), shared=shared)
    twin = tmp_path / "hub"
    shutil.copytree(hf.root, twin, symlinks=True)
    strategy = scan_cache_dir(twin).delete_revisions(revision)

    strategy.execute()
    (twin / "models--org--model" / "trees" / f"{revision}.json").unlink()
    small = (repo.tree(revision).stat().st_size) + 40 * (2 if revision == OLD else 1)
    result = await rm(cache, f"org/model@{revision}")

    ours, theirs = tree_of(hf.root), tree_of(twin)
    for tree in (ours, theirs):
        for path in [path for path in tree if path.startswith(".locks") or path.endswith("/refs/refs")]:
            del tree[path]
        tree.pop("models--org--model/refs/refs/pr", None)
    assert ours == theirs
    assert result.freed_bytes == strategy.expected_freed_size + small


async def test_last_revision_leaves_no_empty_folder(cache: Cache, hf: HfCache) -> None:
    repo = hf.repo("org/model")
    repo.add(model_files(), commit=OLD)
    write_access(repo.path, RepoAccess(gated=False, private=False))

    await rm(cache, f"org/model@{OLD}")

    assert not repo.path.exists()
    assert not repo.locks.exists()


async def test_last_revision_keeps_blobs_of_others(cache: Cache, hf: HfCache) -> None:
    repo = hf.repo("org/model")
    repo.add(model_files(), commit=OLD)
    partial = repo.partial("c" * 64)

    await rm(cache, f"org/model@{OLD}")

    assert partial.exists()
    assert not repo.snapshot(OLD).exists()


async def test_exact_name_takes_precedence_over_a_longer_name_with_the_revision(
    cache: Cache, hf: HfCache
) -> None:
    hf.repo("org/A").add(model_files(fill=b"\1"), commit=OLD)
    large = hf.repo("org/A-Large")
    large.add(model_files(fill=b"\2"), commit="abc" + "0" * 37)

    with refused(ErrorType.REVISION_NOT_FOUND):
        await rm(cache, "org/A@abc")

    assert large.path.exists()


@pytest.mark.parametrize(
    "spec", ["org/model@", "", " ", "org/model@ ", "..", "org/..", "/", "org//model", "a\0b"]
)
async def test_malformed_spec_deletes_nothing(cache: Cache, hf: HfCache, repo: HfRepo, spec: str) -> None:
    before = tree_of(hf.root)

    with refused(ErrorType.VALIDATION_ERROR):
        await rm(cache, spec)

    assert tree_of(hf.root) == before


async def test_payload_used_by_another_repo_is_kept(cache: Cache, hf: HfCache) -> None:
    files = {**model_files(), "model.safetensors": WEIGHTS}
    for name in ("org/a", "org/b"):
        hf.repo(name).add(files, shared=["model.safetensors"])

    first_plan = await plan_remove(cache, "org/a")
    first = await remove(cache, first_plan)
    assert hf.payload(WEIGHTS).read_bytes() == WEIGHTS
    second_plan = await plan_remove(cache, "org/b")
    second = await remove(cache, second_plan)

    assert first_plan.freed_bytes == first.freed_bytes < len(WEIGHTS)
    assert second_plan.freed_bytes == second.freed_bytes == first.freed_bytes + len(WEIGHTS)
    assert not hf.payload(WEIGHTS).exists()
    assert scan_cache_dir(hf.root).size_on_disk == 0


async def test_bytes_with_another_hard_link_are_not_counted_as_freed(
    cache: Cache, hf: HfCache, repo: HfRepo, tmp_path: Path
) -> None:
    weights = model_files(fill=b"\1")["model.safetensors"]
    os.link(repo.blob("model.safetensors", weights), tmp_path / "kept")
    whole = payload_bytes(repo.path)

    result = await rm(cache, "org/model")

    assert result.freed_bytes == whole - len(weights)


async def test_lock_of_another_process_prevents_removal_unless_forced(
    cache: Cache, hf: HfCache, repo: HfRepo
) -> None:
    before = tree_of(hf.root)
    lock = min(repo.locks.iterdir())
    with held_by_another_process(lock):
        plan = await plan_remove(cache, "org/model")
        with pytest.raises(OpError) as caught:
            await remove(cache, plan)
        assert tree_of(hf.root) == before
        assert caught.value.type is ErrorType.LOCKS_PRESENT
        assert isinstance(caught.value.data, RmData)
        assert caught.value.data.lock_files == list(plan.held_locks) == [str(lock.relative_to(hf.root))]

        result = await remove(cache, plan, force=True)
        assert result.action == "deleted"
        assert not repo.path.exists()


async def test_checking_locks_creates_none(cache: Cache, hf: HfCache) -> None:
    repo = hf.repo("org/model")
    repo.add(model_files(), locks=False)

    assert (await plan_remove(cache, "org/model")).held_locks == ()
    assert not (hf.root / ".locks").exists()


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.remove.remove import plan_remove, remove

left = int(sys.argv[3])
def fatal(real):
    def step(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return real(*args, **kwargs)
    return step

async def main():
    cache = Cache(Path(sys.argv[1]))
    plan = await plan_remove(cache, sys.argv[2])
    os.unlink, os.rmdir, os.rename = fatal(os.unlink), fatal(os.rmdir), fatal(os.rename)
    await remove(cache, plan)

asyncio.run(main())
"""


def run_and_kill(root: Path, spec: str, steps: int) -> bool:
    """Remove in another process that is killed before its n-th change; return whether it was killed."""
    done = subprocess.run([sys.executable, "-c", _KILLED, str(root), spec, str(steps)], check=False)
    assert done.returncode in {0, -signal.SIGKILL}
    return done.returncode != 0


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6, 9, 14, 20])
async def test_killed_removal_of_a_model_can_be_finished(cache: Cache, hf: HfCache, steps: int) -> None:
    hf.repo("org/neighbor").add(model_files(fill=b"\7"))
    rest = tree_of(hf.root)
    repo = hf.repo("org/model")
    repo.add(model_files(fill=b"\1"), commit=OLD, refs=["v1"])
    repo.add({**model_files(), "model.safetensors": WEIGHTS}, shared=["model.safetensors"])

    assert run_and_kill(hf.root, "org/model", steps)

    assert (await check_health(cache, "org/model")).unhealthy
    await rm(cache, "org/model")
    assert not hf.payload(WEIGHTS).exists()
    left = {path: what for path, what in tree_of(hf.root).items() if path.split("/")[0] != "blobs"}
    assert left == rest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "steps"),
    [
        *(("org/model@v1", steps) for steps in (1, 2, 3, 4, 5, 8, 9, 10)),
        *((f"org/model@{OLD}", steps) for steps in (1, 4, 10)),
    ],
)
async def test_killed_removal_of_a_revision_keeps_the_other_healthy(
    cache: Cache, hf: HfCache, tmp_path: Path, steps: int, spec: str
) -> None:
    repo = hf.repo("org/model")
    repo.add({**model_files(), "model.safetensors": WEIGHTS}, commit=OLD, refs=["v1"], shared=True)
    repo.add(model_files(fill=b"\2"), commit=NEW)
    expected = HfCache(tmp_path / "hub").create().repo("org/model")
    shutil.copytree(hf.root, expected.cache.root, symlinks=True, dirs_exist_ok=True)
    await rm(_marked(expected.cache), "org/model@v1")

    died = run_and_kill(hf.root, spec, steps)

    assert (await check_health(cache, "org/model")).healthy
    if repo.snapshot(OLD).exists():
        assert (await check_health(cache, f"org/model@{OLD}")).unhealthy
    if died:
        await rm(cache, spec)
    ours = {path: what for path, what in tree_of(repo.path).items() if not path.startswith("refs/")}
    theirs = {path: what for path, what in tree_of(expected.path).items() if not path.startswith("refs/")}
    assert ours == theirs
    assert not (repo.path / "refs" / "v1").exists()
    assert not hf.payload(WEIGHTS).exists()


def _marked(hf: HfCache) -> Cache:
    (hf.root / SENTINEL).touch()
    return Cache(hf.root)


async def test_cancelled_removal_can_be_finished(cache: Cache, hf: HfCache) -> None:
    repo = hf.repo("org/model")
    repo.add({**model_files(), **{f"{n}.txt": b"%d" % n for n in range(300)}})
    plan = await plan_remove(cache, "org/model")
    assert await cancelled_at_first_event(lambda on_event: remove(cache, plan, on_event=on_event))

    assert repo.path.exists()
    await remove(cache, plan)
    assert not repo.path.exists()


async def test_progress_ends_with_the_freed_bytes(cache: Cache, hf: HfCache, repo: HfRepo) -> None:
    events: list[Progress] = []
    plan = await plan_remove(cache, "org/model")

    result = await remove(cache, plan, on_event=events.append)

    assert {event.stage for event in events} == {"remove"}
    assert events[-1].bytes_done == events[-1].bytes_total == result.freed_bytes


async def test_model_removed_meanwhile_is_reported(cache: Cache, repo: HfRepo) -> None:
    plan = await plan_remove(cache, "org/model")
    revision = await plan_remove(cache, "org/model@v1")
    shutil.rmtree(repo.snapshot(OLD))
    (repo.path / "refs" / "v1").unlink()
    with refused(ErrorType.REVISION_NOT_FOUND):
        await remove(cache, revision)
    shutil.rmtree(repo.path)
    with refused(ErrorType.MODEL_NOT_FOUND):
        await remove(cache, plan)


async def test_ref_to_a_missing_snapshot_can_be_removed(cache: Cache, repo: HfRepo) -> None:
    repo.ref("dead", "d" * 40)

    result = await rm(cache, "org/model@dead")

    assert result.revision == "d" * 40
    assert not (repo.path / "refs" / "dead").exists()
    assert sorted(os.listdir(repo.path / "snapshots")) == [OLD, NEW]


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder outside the cache that must not change."""
    folder = tmp_path / "canary"
    HfCache(folder).repo("org/precious").add(model_files())
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_text("keep me")
    return folder


async def test_linked_repo_is_rejected(cache: Cache, hf: HfCache, canary: Path) -> None:
    hf.repo("org/evil").path.symlink_to(canary / "models--org--precious")
    before = tree_of(canary)

    with refused(ErrorType.PERMISSION_DENIED):
        await plan_remove(cache, "org/evil")

    assert tree_of(canary) == before
    assert hf.repo("org/evil").path.is_symlink()


async def test_repo_that_becomes_a_link_after_planning_is_rejected(
    cache: Cache, repo: HfRepo, canary: Path
) -> None:
    plan = await plan_remove(cache, "org/model")
    shutil.rmtree(repo.path)
    repo.path.symlink_to(canary)
    before = tree_of(canary)

    with refused(ErrorType.PERMISSION_DENIED):
        await remove(cache, plan, force=True)

    assert tree_of(canary) == before


@pytest.mark.parametrize(
    "inner", ["snapshots", "blobs", "refs", "trees", "extra", f"snapshots/{NEW}/sub", "refs/x"]
)
async def test_links_inside_a_repo_are_deleted_and_not_followed(
    cache: Cache, repo: HfRepo, canary: Path, inner: str
) -> None:
    path = repo.path / inner
    if path.is_dir():
        shutil.rmtree(path)
    path.symlink_to(canary)
    before = tree_of(canary)

    await rm(cache, "org/model", force=True)

    assert not repo.path.exists()
    assert tree_of(canary) == before


@pytest.mark.parametrize("inner", ["snapshots", "blobs", "refs", "trees"])
async def test_revision_below_a_link_is_rejected(
    cache: Cache, repo: HfRepo, tmp_path: Path, inner: str
) -> None:
    os.rename(repo.path / inner, tmp_path / "outside")
    (repo.path / inner).symlink_to(tmp_path / "outside")
    before = tree_of(tmp_path / "outside")

    with pytest.raises(OpError):
        await rm(cache, f"org/model@{OLD}")

    assert tree_of(tmp_path / "outside") == before


async def test_locks_behind_a_link_are_kept(cache: Cache, hf: HfCache, repo: HfRepo, canary: Path) -> None:
    shutil.rmtree(hf.root / ".locks")
    (hf.root / ".locks").symlink_to(canary)
    (canary / repo.dir_name).mkdir()
    (canary / repo.dir_name / "x.lock").touch()
    before = tree_of(canary)

    result = await rm(cache, "org/model")

    assert result.lock_files_cleaned == 0
    assert tree_of(canary) == before


async def test_folder_replaced_by_a_link_during_removal_is_not_followed(
    cache: Cache, hf: HfCache, canary: Path, tmp_path: Path
) -> None:
    repo = hf.repo("org/model")
    repo.add(model_files())
    names = sorted(os.listdir(canary / "models--org--precious" / "blobs"))
    assert names == sorted(os.listdir(repo.blobs))
    before = tree_of(canary)
    swapped: list[bool] = []

    def swap(event: Progress) -> None:
        if not swapped and repo.blobs.exists():
            os.rename(repo.blobs, tmp_path / "elsewhere")
            repo.blobs.symlink_to(canary / "models--org--precious" / "blobs")
            swapped.append(True)

    await remove(cache, await plan_remove(cache, "org/model"), on_event=swap)

    assert swapped
    assert tree_of(canary) == before
    assert not repo.path.exists()


@pytest.mark.parametrize(
    "name", ["models--..", "models--..--..--canary", "models--a--..", "models--.", "models--\x1b[2J"]
)
async def test_crafted_folder_name_removes_only_that_folder(
    cache: Cache, hf: HfCache, canary: Path, name: str
) -> None:
    folder = hf.root / name
    (folder / "snapshots" / OLD).mkdir(parents=True)
    (folder / "snapshots" / OLD / "config.json").write_text("{}")
    before = tree_of(canary)
    (ref,) = [ref for ref in cache.repos() if ref.folder_name == name]

    await remove(cache, await plan_remove_ref(cache, ref))

    assert not folder.exists()
    assert tree_of(canary) == before


@pytest.mark.parametrize(
    "path", ["..", "../canary", "models--x/../../canary", "datasets--org--x", "models--", "blobs"]
)
async def test_only_models_directly_inside_the_cache_can_be_removed(
    cache: Cache, hf: HfCache, canary: Path, path: str
) -> None:
    (hf.root / "datasets--org--x").mkdir()
    before = tree_of(hf.root)

    with refused(ErrorType.VALIDATION_ERROR):
        await plan_remove_ref(cache, RepoRef("org/x", str(hf.root / path)))

    assert tree_of(hf.root) == before


async def test_deeply_nested_folders_are_removed(cache: Cache, repo: HfRepo) -> None:
    fd = os.open(repo.path, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("deeper", dir_fd=fd)
        fd, parent = os.open("deeper", os.O_RDONLY, dir_fd=fd), fd
        os.close(parent)
    os.close(fd)

    await rm(cache, "org/model")

    assert not repo.path.exists()


@pytest.mark.parametrize(
    "locked", [".", "models--org--model", f"models--org--model/snapshots/{OLD}", "models--org--model/blobs"]
)
@pytest.mark.parametrize("spec", ["org/model", "org/model@v1"])
async def test_read_only_cache_is_unchanged(locked: str, spec: str) -> None:
    with open_folder() as folder:
        hf = HfCache(folder / "hub")
        repo = hf.repo("org/model")
        repo.add(model_files(fill=b"\1"), commit=OLD, refs=["v1"])
        repo.add(model_files(fill=b"\2"), commit=NEW)
        with repo.lock("e" * 64):  # its file stays, as after every download
            pass
        cache = _marked(hf)
        give_away(hf.root)
        (hf.root / locked).chmod(0o555)
        before = tree_of(hf.root)
        with unprivileged(), refused(ErrorType.PERMISSION_DENIED):
            await rm(cache, spec)
        assert tree_of(hf.root) == before


async def test_undeletable_lock_file_does_not_prevent_removal() -> None:
    with open_folder() as folder:
        hf = HfCache(folder / "hub")
        repo = hf.repo("org/model")
        repo.add(model_files(fill=b"\1"), commit=OLD, refs=["v1"])
        repo.add(model_files(fill=b"\2"), commit=NEW)
        for blob in (repo.path / "blobs").iterdir():
            with repo.lock(blob.name):
                pass
        cache = _marked(hf)
        give_away(hf.root)
        repo.locks.chmod(0o555)
        with unprivileged():
            assert (await rm(cache, "org/model@v1")).lock_files_cleaned == 0
        assert not repo.snapshot(OLD).exists()


async def test_cache_without_the_sentinel_is_protected_in_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = HfCache(tmp_path / "precious")
    hf.repo("org/model").add(model_files())
    before = tree_of(hf.root)
    cache = Cache(hf.root)

    with refused(ErrorType.PERMISSION_DENIED):
        await rm(cache, "org/model", force=True)
    assert tree_of(hf.root) == before

    monkeypatch.delenv("MLXK2_STRICT_TEST_DELETE")
    await rm(cache, "org/model")
    assert not hf.repo("org/model").path.exists()


SPEC = st.one_of(
    st.text(max_size=120),
    st.lists(
        st.sampled_from(
            ["..", ".", "/", "canary", "hub", "models--", "--", "@", "org", "evil", "link", "\0", "~"]
        ),
        max_size=8,
    ).map("".join),
)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(spec=SPEC)
@example("org/link")
@example("../canary")
@example("../../canary/models--org--precious")
@example("..--..--canary@main")
async def test_no_spec_reaches_outside_the_cache(hub: Path, canary: Path, spec: str) -> None:
    hf = HfCache(hub)
    repo = hf.repo("org/evil")
    repo.add(model_files(), refs=["main", "refs/pr/1"])
    if not hf.repo("org/link").path.is_symlink():
        hf.repo("org/link").path.symlink_to(canary)
        (repo.path / "canary").symlink_to(canary)
    before = tree_of(canary)

    with contextlib.suppress(OpError):
        await rm(Cache(hub), spec, force=True)

    assert tree_of(canary) == before
    assert hf.repo("org/link").path.is_symlink()


async def test_files_linked_by_another_repo_are_kept_unless_forced(cache: Cache, hub: Path) -> None:
    hf = HfCache(hub)
    first, second = hf.repo("org/first"), hf.repo("org/second")
    files = model_files(fill=b"\7")
    old = first.add(files, refs=())
    first.add(model_files(fill=b"\10"))
    second.add(files)
    shared = second.blob("model.safetensors", files["model.safetensors"])
    owner = first.blob("model.safetensors", files["model.safetensors"])
    shared.unlink()
    shared.symlink_to(f"../../{first.dir_name}/blobs/{owner.name}")

    await remove(cache, await plan_remove(cache, f"org/first@{old}"))
    assert shared.read_bytes() == files["model.safetensors"]

    plan = await plan_remove(cache, "org/first")
    with pytest.raises(OpError) as caught:
        await remove(cache, plan)
    assert caught.value.type is ErrorType.CONFIRMATION_REQUIRED
    assert caught.value.matches == ("org/second",)
    assert shared.exists()

    await remove(cache, plan, force=True)
    assert not first.path.exists()
    assert not shared.exists()
