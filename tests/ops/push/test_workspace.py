"""The workspace check of push: the health rules, applied to a folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.clone.clone import clone
from mlxk_tui.ops.contract.results import WorkspaceHealth
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.push.workspace import check_workspace
from tests.support.hf_cache import HfCache, model_files, safetensors, tree_of
from tests.support.unprivileged import open_folder, unprivileged

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456789\n"


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def codes(health: WorkspaceHealth) -> list[tuple[str, str]]:
    return [(anomaly.severity, anomaly.code) for anomaly in health.anomalies]


async def test_clone_is_a_healthy_workspace(cache: Cache, hub: Path, tmp_path: Path) -> None:
    HfCache(hub).repo("org/model").add(model_files(shards=3))
    await clone(cache, "org/model", tmp_path / "work")
    before = tree_of(tmp_path)

    health = await check_workspace(tmp_path / "work")

    assert health.healthy
    assert health.anomalies == []
    assert (health.files_count, health.total_bytes) == (
        len(model_files(shards=3)),
        sum(map(len, model_files(shards=3).values())),
    )
    assert (health.config.exists, health.config.valid_json, health.config.path) == (True, True, "config.json")
    assert (health.weights.count, health.weights.formats) == (3, ["safetensors"])
    assert (health.weights.index.has_index, health.weights.index.missing) == (True, [])
    assert health.weights.pattern_complete
    assert health.tokenizer
    assert tree_of(tmp_path) == before


async def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", model_files(shards=3))
    gone = "model-00002-of-00003.safetensors"
    (folder / gone).unlink()

    health = await check_workspace(folder)

    assert not health.healthy
    assert health.weights.index.missing == [gone]
    assert not health.weights.pattern_complete
    assert ("error", "shard_missing") in codes(health)


async def test_complete_shards_without_an_index_are_unhealthy(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", model_files(shards=2))
    (folder / "model.safetensors.index.json").unlink()

    health = await check_workspace(folder)

    assert codes(health) == [("error", "shard_without_index")]
    assert health.weights.pattern_complete
    assert not health.weights.index.has_index


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"config.json": None}, "config_missing"),
        ({"config.json": b"[]"}, "config_invalid"),
        ({"config.json": b"{}"}, "config_invalid"),
        ({"config.json": b"[" * 100_000}, "config_invalid"),
        ({"model.safetensors": None}, "weights_missing"),
        ({"model.safetensors": b""}, "weights_empty"),
        ({"model.safetensors": safetensors()[:-1]}, "weights_truncated"),
        ({"model.safetensors": b"\0" * 500}, "weights_corrupt"),
        ({"model.safetensors": POINTER}, "lfs_pointer"),
        ({"sub/extra.safetensors.partial": b"x"}, "partial_file"),
    ],
)
async def test_every_fault_of_a_cached_model_is_found_in_a_workspace(
    tmp_path: Path, change: dict[str, bytes | None], code: str
) -> None:
    files = {name: data for name, data in {**model_files(), **change}.items() if data is not None}

    health = await check_workspace(write(tmp_path / "w", files))

    assert not health.healthy
    assert ("error", code) in codes(health)


async def test_missing_tokenizer_is_a_warning(tmp_path: Path) -> None:
    files = model_files()
    del files["tokenizer.json"]

    health = await check_workspace(write(tmp_path / "w", files))

    assert health.healthy
    assert not health.tokenizer
    assert codes(health) == [("warn", "tokenizer_missing")]


async def test_links_are_followed_only_inside_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", model_files())
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "copy.json").symlink_to("config.json")
    inside = await check_workspace(folder)
    (folder / "stolen.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")

    health = await check_workspace(folder)

    assert inside.healthy
    assert {(anomaly.path, anomaly.code) for anomaly in health.anomalies} == {
        ("stolen.txt", "link_outside_workspace"),
        ("gone.txt", "broken_link"),
        ("loop", "broken_link"),
        ("up", "link_outside_workspace"),
        ("pipe", "unreadable"),
    }
    assert health.total_bytes == inside.total_bytes


async def test_linked_folder_is_accepted(tmp_path: Path) -> None:
    write(tmp_path / "w", model_files())
    (tmp_path / "link").symlink_to("w")

    assert (await check_workspace(tmp_path / "link")).healthy


async def test_git_and_download_metadata_are_ignored(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", model_files())
    write(folder, {".git/x.partial": b"x", ".cache/huggingface/x.incomplete": b"x", "sub/.DS_Store": b"x"})

    health = await check_workspace(folder)

    assert health.healthy
    assert health.files_count == len(model_files())


async def test_hostile_names_and_index_paths_are_reported_safely(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", model_files())
    index = {"weight_map": {"a": "../../../etc/passwd", "b": "\x1b[2Jevil.safetensors"}}
    write(folder, {"model.safetensors.index.json": json.dumps(index).encode(), "\x1b[31mred.partial": b"x"})

    health = await check_workspace(folder)

    assert ("error", "index_unsafe_path") in codes(health)
    text = health.model_dump_json()
    assert "\\u001b" not in text
    assert "\x1b" not in text


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes only UTF-8 names")
async def test_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", {**model_files(), os.fsdecode(b"\xff.partial"): b"x"})

    health = await check_workspace(folder)

    assert [anomaly.path for anomaly in health.anomalies] == ["\\xff.partial"]


@pytest.mark.parametrize("kind", ["missing", "file", "nul", "endless"])
async def test_anything_but_a_folder_is_not_found(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    folder = {"missing": "none", "file": "file", "nul": "a\0b", "endless": "x" * 5000}[kind]

    with pytest.raises(OpError) as caught:
        await check_workspace(tmp_path / folder)

    assert caught.value.type is ErrorType.WORKSPACE_NOT_FOUND


async def test_unreadable_folders_are_reported() -> None:
    with open_folder() as root:
        folder = write(root / "w", {**model_files(), "sub/x.txt": b"x"})
        (folder / "sub").chmod(0)
        with unprivileged():
            health = await check_workspace(folder)
        assert codes(health) == [("error", "unreadable")]
        assert health.anomalies[0].path == "sub/"
        folder.chmod(0)
        with unprivileged(), pytest.raises(OpError) as caught:
            await check_workspace(folder)
        assert caught.value.type is ErrorType.PERMISSION_DENIED
