"""clone: a folder of regular files, created completely or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.clone.clone import clone
from mlxk_tui.ops.contract.results import CloneData, Health
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.core.reflink import copy, open_source, reflink
from mlxk_tui.ops.core.remedies import Remedy
from tests.support.cancelling import cancelled_at_first_event
from tests.support.hf_cache import HfCache, HfRepo, model_files, safetensors, tree_of
from tests.support.unprivileged import give_away, open_folder, unprivileged

OLD, NEW = "a" * 40, "b" * 40
FILES = {**model_files(fill=b"\2"), "sub/deep/notes.txt": b"notes"}


@pytest.fixture
def hf(hub: Path) -> HfCache:
    return HfCache(hub).create()


@pytest.fixture
def repo(hf: HfCache) -> HfRepo:
    repo = hf.repo("mlx-community/model")
    repo.add(model_files(fill=b"\1"), commit=OLD, refs=["v1"])
    repo.add(FILES, commit=NEW)
    return repo


@contextmanager
def refused(error_type: ErrorType, *words: str, remedy: Remedy | None = None) -> Iterator[None]:
    with pytest.raises(OpError) as caught:
        yield
    assert caught.value.type is error_type, caught.value.message
    assert all(word in caught.value.message for word in words), caught.value.message
    assert remedy in {None, caught.value.remedy}


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("shared", [False, True])
async def test_clone_is_a_folder_of_regular_files(
    cache: Cache, hf: HfCache, tmp_path: Path, shared: bool
) -> None:
    hf.repo("org/model").add(FILES, commit=NEW, shared=shared)
    before = tree_of(hf.root)
    target = tmp_path / "work" / "model"

    data = await clone(cache, "org/model", target)

    assert content_of(target) == FILES
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert all(os.stat(path).st_mode & stat.S_IWUSR for path in target.rglob("*"))
    assert tree_of(hf.root) == before
    assert os.listdir(target.parent) == ["model"]
    assert (data.clone_status, data.model, data.commit_hash) == ("success", "org/model", NEW)
    assert (data.files_count, data.bytes_total) == (len(FILES), sum(map(len, FILES.values())))
    assert (data.health, data.expanded_name, data.target_dir) == (Health.HEALTHY, None, str(target))


@pytest.mark.parametrize(
    ("spec", "revision"), [("model@v1", None), ("model", "v1"), ("model@v1", "v1"), ("model", OLD[:6])]
)
async def test_revision_can_be_given_in_two_ways(
    cache: Cache, repo: HfRepo, tmp_path: Path, spec: str, revision: str | None
) -> None:
    data = await clone(cache, spec, tmp_path / "out", revision=revision)

    assert content_of(tmp_path / "out") == model_files(fill=b"\1")
    assert (data.commit_hash, data.expanded_name) == (OLD, "mlx-community/model")


async def test_two_different_revisions_are_rejected(cache: Cache, repo: HfRepo, tmp_path: Path) -> None:
    with refused(ErrorType.VALIDATION_ERROR, "two different revisions"):
        await clone(cache, "model@v1", tmp_path / "out", revision="main")


async def test_an_empty_folder_is_filled(cache: Cache, repo: HfRepo, tmp_path: Path) -> None:
    target = tmp_path / "empty"
    target.mkdir()

    await clone(cache, "model", target)

    assert content_of(target) == FILES


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling"])
async def test_existing_target_is_kept(cache: Cache, repo: HfRepo, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "folder":
        target.mkdir()
        (target / "mine").write_text("mine")
    elif kind == "file":
        target.write_text("mine")
    else:
        (tmp_path / "empty").mkdir()
        target.symlink_to(tmp_path / ("empty" if kind == "link" else "nowhere"))
    before = tree_of(tmp_path)

    with refused(ErrorType.VALIDATION_ERROR, remedy=Remedy.NAME_A_NEW_FOLDER):
        await clone(cache, "model", target)

    assert tree_of(tmp_path) == before


@pytest.mark.parametrize("inside", ["", "new", "models--mlx-community--model/snapshots/new", "x/../y"])
async def test_target_inside_the_cache_is_rejected(
    cache: Cache, hf: HfCache, repo: HfRepo, tmp_path: Path, inside: str
) -> None:
    (tmp_path / "detour").symlink_to(hf.root)
    before = tree_of(hf.root)

    for target in (hf.root / inside, tmp_path / "detour" / inside):
        with refused(ErrorType.VALIDATION_ERROR, "inside the cache"):
            await clone(cache, "model", target)

    assert tree_of(hf.root) == before


async def test_current_folder_is_rejected_as_target(
    cache: Cache, repo: HfRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with refused(ErrorType.VALIDATION_ERROR, "folder you are in"):
        await clone(cache, "model", Path("."))


@pytest.mark.parametrize("target", ["", " ", "a\0b", "x" * 5000])
async def test_impossible_target_is_rejected(
    cache: Cache, repo: HfRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with refused(ErrorType.VALIDATION_ERROR):
        await clone(cache, "model", Path(target))

    assert os.listdir(tmp_path) == []


async def test_missing_model_must_be_pulled_first(cache: Cache, hf: HfCache, tmp_path: Path) -> None:
    for where in (cache, Cache(tmp_path / "no-cache")):
        with refused(ErrorType.MODEL_NOT_FOUND, "'org/none'", remedy=Remedy.PULL_FIRST):
            await clone(where, "org/none", tmp_path / "out")

    assert os.listdir(tmp_path) == []


async def test_unhealthy_model_is_rejected_with_the_reason(cache: Cache, hf: HfCache, tmp_path: Path) -> None:
    repo = hf.repo("org/model")
    repo.add(FILES)
    blob = repo.blob("model.safetensors", FILES["model.safetensors"])
    os.truncate(blob, 60)

    with pytest.raises(OpError) as caught:
        await clone(cache, "org/model", tmp_path / "out")
    assert caught.value.type is ErrorType.CLONE_FAILED
    assert "model.safetensors" in caught.value.message
    assert caught.value.remedy is Remedy.PULL_OR_CLONE_UNCHECKED
    assert isinstance(caught.value.data, CloneData)
    assert (caught.value.data.clone_status, caught.value.data.health) == ("failed", Health.UNHEALTHY)
    assert os.listdir(tmp_path) == []

    data = await clone(cache, "org/model", tmp_path / "out", check_health=False)
    assert (data.clone_status, data.health) == ("success", None)
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == 60


async def test_links_out_of_the_cache_are_never_copied(cache: Cache, hf: HfCache, tmp_path: Path) -> None:
    repo = hf.repo("org/model")
    commit = repo.add(FILES)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret").write_text("secret")
    for name, where in (("stolen.txt", secret), ("folder", tmp_path / "folder"), ("gone", tmp_path / "none")):
        (repo.snapshot(commit) / name).symlink_to(where)

    with refused(ErrorType.CLONE_FAILED):
        await clone(cache, "org/model", tmp_path / "out")
    data = await clone(cache, "org/model", tmp_path / "out", check_health=False)

    assert content_of(tmp_path / "out") == FILES
    assert "3 broken files left out" in data.message


async def test_repo_without_a_snapshot_cannot_be_cloned(cache: Cache, hf: HfCache, tmp_path: Path) -> None:
    hf.repo("org/model").ref("main", NEW)

    for check in (True, False):
        with refused(ErrorType.CLONE_FAILED, "org/model", remedy=Remedy.PULL_FIRST):
            await clone(cache, "org/model", tmp_path / "out", check_health=check)


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


async def test_lack_of_disk_space_is_detected_before_copying(
    cache: Cache, repo: HfRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(100, 90, 10))

    with refused(ErrorType.DISK_FULL, "only 10 B is free"):
        await clone(cache, "model", tmp_path / "new" / "out")

    assert os.listdir(tmp_path) == []


async def test_read_only_folder_is_reported() -> None:
    with open_folder() as folder:
        hf = HfCache(folder / "hub")
        hf.repo("org/model").add(FILES)
        (folder / "mine").mkdir()
        give_away(hf.root)
        (folder / "mine").chmod(0o555)
        with unprivileged(), refused(ErrorType.PERMISSION_DENIED, "cannot be written"):
            await clone(Cache(hf.root), "org/model", folder / "mine" / "out")
        assert os.listdir(folder / "mine") == []


async def test_cancelled_clone_leaves_no_files(cache: Cache, repo: HfRepo, tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"

    assert await cancelled_at_first_event(lambda on_event: clone(cache, "model", target, on_event=on_event))

    assert os.listdir(tmp_path) == []
    await clone(cache, "model", target)
    assert content_of(target) == FILES


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.clone.clone import clone

def die(event):
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(clone(Cache(Path(sys.argv[1])), "model", Path(sys.argv[2]), on_event=die))
"""


def clone_in_another_process(cache_root: Path, target: Path, *, die: bool) -> int:
    """Clone in another process, which may kill itself at its first event; return its exit status."""
    code = _KILLED if die else _KILLED.replace(", on_event=die", "")
    return subprocess.run([sys.executable, "-c", code, str(cache_root), str(target)], check=False).returncode


async def test_killed_clone_leaves_no_partial_folder(
    cache: Cache, hf: HfCache, repo: HfRepo, tmp_path: Path
) -> None:
    target = tmp_path / "out"

    assert clone_in_another_process(hf.root, target, die=True) == -signal.SIGKILL
    assert not target.exists()
    (rest,) = os.listdir(tmp_path)
    os.utime(tmp_path / rest, (0, 0))

    await clone(cache, "model", target)

    assert os.listdir(tmp_path) == ["out"]
    assert content_of(target) == FILES


async def test_running_clone_is_not_cleaned_up(cache: Cache, repo: HfRepo, tmp_path: Path) -> None:
    target = tmp_path / "out"
    others: list[int] = []

    def overtake(event: Progress) -> None:
        if not others:
            for name in os.listdir(tmp_path):
                os.utime(tmp_path / name, (0, 0))
            others.append(clone_in_another_process(cache.root, target, die=False))

    with refused(ErrorType.CLONE_FAILED, "Another program created"):
        await clone(cache, "model", target, on_event=overtake)

    assert others == [0]
    assert content_of(target) == FILES
    assert os.listdir(tmp_path) == ["out"]


async def test_file_that_changes_while_copied_fails_the_clone(
    cache: Cache, hf: HfCache, tmp_path: Path
) -> None:
    repo = hf.repo("org/model")
    files = {**FILES, "model.safetensors": safetensors({"w": ("F32", (1024, 3000))})}
    repo.add(files)
    blob = repo.blob("model.safetensors", files["model.safetensors"])

    def shrink(event: Progress) -> None:
        os.truncate(blob, 5_000_000)

    with refused(ErrorType.CLONE_FAILED, "changed while it was copied"):
        await clone(cache, "org/model", tmp_path / "out", on_event=shrink)

    assert os.listdir(tmp_path) == []


async def test_progress_counts_every_byte_and_file(cache: Cache, repo: HfRepo, tmp_path: Path) -> None:
    events: list[Progress] = []

    data = await clone(cache, "model", tmp_path / "out", on_event=events.append)

    assert {event.stage for event in events} == {"clone"}
    assert events[-1].bytes_done == events[-1].bytes_total == data.bytes_total
    assert events[-1].files_done == events[-1].files_total == data.files_count


def test_reflink_has_the_same_bytes_or_fails_without_leftovers(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    source, length = open_source(str(tmp_path / "source"))
    try:
        if reflink(source, str(tmp_path / "clone")):
            assert (tmp_path / "clone").read_bytes() == b"x" * 100_000
        else:
            assert not (tmp_path / "clone").exists()
        seen: list[int] = []
        assert copy(source, str(tmp_path / "copy"), seen.append) == length == sum(seen)
    finally:
        os.close(source)
    assert (tmp_path / "copy").read_bytes() == b"x" * 100_000


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(OSError):  # noqa: PT011 - which one depends on the kind
            open_source(str(tmp_path / name))
