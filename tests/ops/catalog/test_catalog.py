"""The scan of the cache, and stored verdicts."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import inspect_model, iter_reports, list_models, scan
from mlxk_tui.ops.catalog.show import read_card, show
from mlxk_tui.ops.contract.results import Health
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import Report
from mlxk_tui.ops.health.verdict_cache import ENVIRONMENT_VARIABLE
from tests.ops.health.test_integrity import RUNTIME
from tests.support.hf_cache import HfCache, model_files, tree_of

OLD = 1_600_000_000.0
"""A time that is not racy for any test."""


@pytest.fixture
def verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "verdicts"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(folder))
    return folder


def _names(reports: list[Report]) -> list[str]:
    return [report.model.name for report in reports]


async def test_models_are_sorted_and_other_entries_are_ignored(cache: Cache, hub: Path) -> None:
    for name in ("org/b", "mlx-community/C", "a"):
        HfCache(hub).repo(name).add(model_files())
    for folder in ("datasets--org--x", "spaces--org--x", "models--", ".locks", "blobs"):
        (hub / folder).mkdir(exist_ok=True)
    (hub / "models--a--file").write_text("a file")
    found = [report async for report in scan(cache, runtime=RUNTIME)]
    assert _names(found) == ["a", "mlx-community/C", "org/b"]


async def test_hard_links_count_once_in_disk_usage(cache: Cache, hub: Path) -> None:
    repo = HfCache(hub).repo("org/linked")
    commit = repo.add(model_files())
    before = (await list_models(cache)).models[0].disk_bytes
    blob = max(repo.blobs.iterdir(), key=lambda path: path.stat().st_size)
    os.link(blob, repo.blobs / ("0" * 40))
    plain = repo.snapshot(commit) / "copy.bin"  # as huggingface_hub writes where it cannot make links
    os.link(blob, plain)
    assert (await list_models(cache)).models[0].disk_bytes == before
    plain.unlink()
    plain.write_bytes(blob.read_bytes())
    assert (await list_models(cache)).models[0].disk_bytes == before + blob.stat().st_size


async def test_missing_cache_is_empty(tmp_path: Path) -> None:
    assert (await list_models(Cache(tmp_path / "none"))).count == 0


async def test_file_instead_of_the_cache_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OpError) as caught:
        await list_models(Cache(tmp_path / "file"))
    assert caught.value.type is ErrorType.CACHE_NOT_FOUND
    with pytest.raises(OpError):
        _ = [report async for report in scan(Cache(tmp_path / "file"))]


async def test_pattern_matches_part_of_the_name_case_insensitively(cache: Cache, hub: Path) -> None:
    for name in ("org/Qwen3-4B", "org/Llama"):
        HfCache(hub).repo(name).add(model_files())
    assert [model.name for model in (await list_models(cache, "qWEN")).models] == ["org/Qwen3-4B"]


async def test_broken_repo_is_a_single_unhealthy_row(cache: Cache, hub: Path) -> None:
    HfCache(hub).repo("org/good").add(model_files())
    HfCache(hub).repo("org/list").add({**model_files(), "config.json": b"[]"})
    (hub / "models--org--bare").mkdir()
    (hub / "models--org--dangling").symlink_to(hub / "nowhere")
    (hub / "models--org--file-for-folder").mkdir()
    (hub / "models--org--file-for-folder" / "snapshots").write_text("x")
    models = {model.name: model for model in (await list_models(cache, runtime=RUNTIME)).models}
    assert {name for name, model in models.items() if model.health is Health.HEALTHY} == {"org/good"}
    assert len(models) == 5
    assert all(model.reason for name, model in models.items() if name != "org/good")


async def test_scan_writes_nothing_to_the_cache(cache: Cache, hub: Path, verdicts: Path) -> None:
    HfCache(hub).repo("org/good").add(model_files(), modified=OLD)
    before = tree_of(hub)
    await list_models(cache)
    await show(cache, "org/good", files=True, config=True)
    assert tree_of(hub) == before


async def test_spec_selects_the_revision(cache: Cache, hub: Path) -> None:
    repo = HfCache(hub).repo("org/m")
    first = repo.add(model_files(), refs=("main", "v1"))
    second = repo.add(model_files(fill=b"\x02"), refs=("refs/pr/1",))
    assert (await inspect_model(cache, "org/m")).model.hash == first
    assert (await inspect_model(cache, "org/m@v1")).model.hash == first
    assert (await inspect_model(cache, "org/m@refs/pr/1")).model.hash == second
    assert (await inspect_model(cache, f"org/m@{second[:8].upper()}")).model.hash == second
    assert (await inspect_model(cache, "org/m")).model.revisions == 2
    for wrong in (second[:2], "nothing", "f" * 40):
        with pytest.raises(OpError) as caught:
            await inspect_model(cache, f"org/m@{wrong}")
        assert caught.value.type is ErrorType.REVISION_NOT_FOUND
        assert caught.value.available_hashes == tuple(sorted([first, second]))


async def test_exact_name_takes_precedence_over_a_longer_name_with_the_revision(
    cache: Cache, hub: Path
) -> None:
    HfCache(hub).repo("org/A").add(model_files(), commit="a" * 40)
    HfCache(hub).repo("org/A-Large").add(model_files(), commit="b" * 40)
    with pytest.raises(OpError) as caught:
        await show(cache, "org/A@bbb")
    assert caught.value.type is ErrorType.REVISION_NOT_FOUND


async def test_show_returns_files_and_config_together(cache: Cache, hub: Path) -> None:
    HfCache(hub).repo("org/m").add({**model_files(), "sub/notes.py": b"x"})
    data = await show(cache, "org/m", files=True, config=True)
    assert {file.name: file.type for file in data.files} == {
        "README.md": "readme",
        "config.json": "config",
        "model.safetensors": "weights",
        "sub/notes.py": "code",
        "tokenizer.json": "tokenizer",
        "tokenizer_config.json": "tokenizer",
    }
    assert all(file.etag and file.size_bytes is not None for file in data.files)
    assert data.config is not None
    assert data.metadata is None
    plain = await show(cache, "org/m")
    assert (plain.files, plain.config) == ([], None)
    assert plain.metadata == data.config


async def test_model_card_has_no_front_matter_and_no_control_characters(cache: Cache, hub: Path) -> None:
    card = b"---\nlicense: mit\n---\n# Title\x1b[31m\n\ntext\xe2\x80\xae\n"
    HfCache(hub).repo("org/m").add({**model_files(), "README.md": card})
    assert await read_card(cache, cache.find("org/m").ref) == "# Title\\x1b[31m\n\ntext\\u202e"


def _remembered(verdicts: Path) -> str:
    return "".join(path.read_text() for path in verdicts.glob("*.json"))


def _walk(cache: Cache, runtime: Runtime = RUNTIME, *, hours_later: int = 1) -> list[Report]:
    """Scan with a clock that is ahead, because change times cannot be set."""

    def clock() -> int:
        return time.time_ns() + hours_later * 3_600_000_000_000

    return list(iter_reports(cache, threading.Event(), runtime=runtime, clock=clock))


async def test_verdicts_of_recently_changed_repos_are_not_stored(
    cache: Cache, hub: Path, verdicts: Path
) -> None:
    HfCache(hub).repo("org/fresh").add(model_files())
    _walk(cache, hours_later=0)
    assert "org/fresh" not in _remembered(verdicts)


def test_stored_verdict_equals_the_original(cache: Cache, hub: Path, verdicts: Path) -> None:
    for number in range(3):
        HfCache(hub).repo(f"org/m{number}").add(model_files(shards=number + 1), shared=number == 1)
    HfCache(hub).repo("org/bad").add({**model_files(), "model.safetensors": b"\0" * 64})
    first = _walk(cache)
    assert "org/bad" in _remembered(verdicts)
    assert _walk(cache) == first


@pytest.mark.parametrize("shared", [False, True])
def test_any_change_to_a_repo_invalidates_its_verdict(
    cache: Cache, hub: Path, verdicts: Path, shared: bool
) -> None:
    repo = HfCache(hub).repo("org/m")
    files = model_files()
    commit = repo.add(files, shared=shared)
    assert _walk(cache)[0].model.health is Health.HEALTHY
    weights = repo.blob("model.safetensors", files["model.safetensors"]).resolve()
    whole = weights.read_bytes()
    info = weights.stat()
    weights.chmod(0o644)
    weights.write_bytes(whole[:-1] + b"")
    os.utime(weights, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert _walk(cache)[0].model.health is Health.UNHEALTHY
    weights.write_bytes(whole)
    assert _walk(cache)[0].model.health is Health.HEALTHY
    (repo.snapshot(commit) / "config.json").unlink()
    assert _walk(cache)[0].model.health is Health.UNHEALTHY
    (repo.snapshot(commit) / "config.json").symlink_to(
        "../../blobs/" + repo.blob("config.json", files["config.json"]).name
    )
    assert _walk(cache)[0].model.health is Health.HEALTHY
    repo.ref("main", "f" * 40)
    assert _walk(cache)[0].model.health is Health.UNHEALTHY
    repo.ref("main", commit)
    repo.tree(commit).write_text(repo.tree(commit).read_text().replace('"README.md"', '"vocab.json"'))
    assert _walk(cache)[0].model.health is Health.UNHEALTHY


def test_another_runtime_invalidates_the_verdicts(cache: Cache, hub: Path, verdicts: Path) -> None:
    HfCache(hub).repo("mlx-community/m").add(model_files())
    assert _walk(cache)[0].model.runtime_compatible
    other = Runtime("9.9", frozenset({"other"}), memory_bytes=1)
    assert not _walk(cache, other)[0].model.runtime_compatible


def test_verdict_of_a_removed_repo_is_dropped(cache: Cache, hub: Path, verdicts: Path) -> None:
    for name in ("org/a", "org/b"):
        HfCache(hub).repo(name).add(model_files())
    _walk(cache)
    shutil.rmtree(hub / "models--org--a")
    assert _names(_walk(cache)) == ["org/b"]
    assert "org/a" not in _remembered(verdicts)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"header": 1}', b"{" * 100_000])
def test_damaged_verdict_file_is_ignored(cache: Cache, hub: Path, verdicts: Path, content: bytes) -> None:
    HfCache(hub).repo("org/a").add(model_files())
    first = _walk(cache)
    for path in verdicts.glob("*.json"):
        path.write_bytes(content)
    assert _walk(cache) == first


def test_entries_with_another_format_are_ignored(cache: Cache, hub: Path, verdicts: Path) -> None:
    HfCache(hub).repo("org/a").add(model_files())
    first = _walk(cache)
    (path,) = verdicts.glob("*.json")
    path.write_text(path.read_text().replace('"model":{', '"model":{"surprise":1,'))
    assert _walk(cache) == first


def test_off_stores_no_verdicts(
    cache: Cache, hub: Path, verdicts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "off")
    HfCache(hub).repo("org/a").add(model_files())
    _walk(cache)
    assert not verdicts.exists()


def test_other_architectures_invalidate_the_verdicts(cache: Cache, hub: Path, verdicts: Path) -> None:
    HfCache(hub).repo("mlx-community/m").add(model_files())
    here = Runtime("1", frozenset({"llama", "x"}), memory_bytes=10**10)
    assert _walk(cache, here)[0].model.runtime_compatible
    other = Runtime("1", frozenset({"qwen", "x"}), memory_bytes=10**10)
    assert not _walk(cache, other)[0].model.runtime_compatible


def test_changes_behind_a_linked_folder_are_noticed(cache: Cache, hub: Path, verdicts: Path) -> None:
    repo = HfCache(hub).repo("org/m")
    files = model_files()
    repo.add(files, tree=False)
    repo.blobs.rename(repo.path / "elsewhere")
    repo.blobs.symlink_to("elsewhere")
    assert _walk(cache)[0].model.health is Health.HEALTHY
    (repo.path / "elsewhere" / "x.incomplete").write_bytes(b"half")
    assert _walk(cache)[0].model.health is Health.UNHEALTHY


@pytest.mark.parametrize("kind", ["loop", "below a file", "long"])
async def test_invalid_cache_path_is_an_error(tmp_path: Path, kind: str) -> None:
    if kind == "loop":
        root = tmp_path / "loop"
        root.symlink_to(root)
    elif kind == "below a file":
        (tmp_path / "file").write_text("x")
        root = tmp_path / "file" / "hub"
    else:
        root = tmp_path / ("x" * 300)
    with pytest.raises(OpError) as caught:
        await list_models(Cache(root))
    assert caught.value.type is ErrorType.CACHE_NOT_FOUND
