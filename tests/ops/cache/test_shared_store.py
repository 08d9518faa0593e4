"""The shared payload store of huggingface_hub 2, compared with huggingface_hub itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import scan_cache_dir
from huggingface_hub.utils import _shared_blobs as hub

from mlxk_tui.ops.cache.shared_store import SharedStore
from tests.support.hf_cache import (
    SHARED_MARKER,
    HfCache,
    HfRepo,
    held_by_another_process,
    model_files,
    safetensors,
    tree_of,
)

WEIGHTS = safetensors({"w": ("F32", (64, 64))})


@pytest.fixture
def hf(hub: Path) -> HfCache:
    return HfCache(hub).create()


def shared_repo(hf: HfCache, name: str) -> HfRepo:
    repo = hf.repo(name)
    repo.add({**model_files(), "model.safetensors": WEIGHTS}, shared=["model.safetensors"])
    return repo


def test_scan_matches_huggingface_hub(hf: HfCache) -> None:
    repo = shared_repo(hf, "org/a")
    store = SharedStore(hf.root)
    blob = repo.blob("model.safetensors", WEIGHTS)

    assert store.exists()
    assert store.payload_for(blob) == hub.shared_blob_target(blob, hf.root) == hf.payload(WEIGHTS)
    assert set(store.payloads()) == hub.shared_store_blob_paths(hf.root)
    assert store.references(hf.payload(WEIGHTS)) == frozenset({blob})
    assert store.links() == {hf.payload(WEIGHTS): {blob}}
    assert store.payload_for(repo.blob("README.md", model_files()["README.md"])) is None


@pytest.mark.parametrize("marker", [None, "", "2\n", "1"])
def test_folder_named_blobs_without_a_marker_is_not_a_store(hf: HfCache, marker: str | None) -> None:
    payload = hf.add_payload(WEIGHTS, [])
    (hf.store / SHARED_MARKER).unlink()
    if marker is not None:
        (hf.store / SHARED_MARKER).write_text(marker)
    store = SharedStore(hf.root)

    assert not store.exists()
    assert store.unreferenced() == {}
    assert store.release(payload) == 0
    assert payload.exists()


def test_payload_is_removed_with_its_last_reference(hf: HfCache) -> None:
    first, second = shared_repo(hf, "org/a"), shared_repo(hf, "org/b")
    payload = hf.payload(WEIGHTS)
    blobs = [repo.blob("model.safetensors", WEIGHTS) for repo in (first, second)]
    store = SharedStore(hf.root)

    assert store.freed_by(payload, blobs[:1]) == 0
    assert store.freed_by(payload, blobs) == len(WEIGHTS)
    assert store.release(payload, remove_link=blobs[0].unlink) == 0
    assert payload.exists()
    assert hf.manifest(WEIGHTS).read_text() == f"{second.dir_name}/blobs/{blobs[1].name}\n"
    assert hub._read_valid_manifest_references(payload, hf.root) == {blobs[1]}
    assert store.release(payload, remove_link=blobs[1].unlink) == len(WEIGHTS)
    assert not payload.exists()
    assert not hf.manifest(WEIGHTS).exists()


def test_payload_without_a_manifest_is_never_deleted(hf: HfCache) -> None:
    payload = hf.add_payload(WEIGHTS, None)
    store = SharedStore(hf.root)

    assert store.references(payload) is None
    assert store.unreferenced() == hub.unreferenced_shared_blobs(hf.root) == {}
    assert store.release(payload) == 0
    assert payload.exists()


def test_link_missing_in_the_manifest_keeps_the_payload(hf: HfCache) -> None:
    repo = shared_repo(hf, "org/a")
    hf.manifest(WEIGHTS).write_text("")
    payload, store = hf.payload(WEIGHTS), SharedStore(hf.root)

    assert store.unreferenced() == {}
    assert store.release(payload, links=store.links()[payload]) == 0
    assert payload.exists()
    assert repo.blob("model.safetensors", WEIGHTS).exists()


def test_manifest_lines_with_broken_links_are_ignored(hf: HfCache) -> None:
    lines = ["", "../escape", "/etc/passwd", "models--org--gone/blobs/x", "blobs", "a" * 200, "\x1b[2J"]
    payload = hf.add_payload(WEIGHTS, lines)

    assert SharedStore(hf.root).references(payload) == frozenset()


def test_unreadable_manifest_line_keeps_the_payload(hf: HfCache) -> None:
    payload = hf.add_payload(WEIGHTS, [f"models--org--gone/blobs/{'x' * 5000}"])

    assert SharedStore(hf.root).references(payload) is None
    assert hub._read_valid_manifest_references(payload, hf.root) is None


def test_payloads_unreferenced_for_huggingface_hub_are_released(hf: HfCache) -> None:
    payload = hf.add_payload(WEIGHTS, ["models--org--gone/blobs/x"])
    store = SharedStore(hf.root)

    assert store.unreferenced() == hub.unreferenced_shared_blobs(hf.root) == {payload: len(WEIGHTS)}
    assert store.payloads_listing("models--org--gone") == {payload}
    assert store.release(payload) == len(WEIGHTS)
    assert scan_cache_dir(hf.root).size_on_disk == 0


def test_linked_or_huge_manifest_keeps_the_payload(hf: HfCache, tmp_path: Path) -> None:
    payload = hf.add_payload(WEIGHTS, None)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    hf.manifest(WEIGHTS).symlink_to(elsewhere)
    store = SharedStore(hf.root)
    assert store.references(payload) is None

    hf.manifest(WEIGHTS).unlink()
    with hf.manifest(WEIGHTS).open("wb") as manifest:
        manifest.truncate(17_000_000)
    assert store.references(payload) is None
    assert store.release(payload) == 0
    assert payload.exists()


def test_store_linked_out_of_the_cache_is_not_followed(hf: HfCache, tmp_path: Path) -> None:
    payload = hf.add_payload(WEIGHTS, ["models--org--gone/blobs/x"])
    outside = tmp_path / "outside"
    os.rename(payload.parent, outside)
    payload.parent.symlink_to(outside)
    before = tree_of(outside)
    store = SharedStore(hf.root)

    assert store.unreferenced() == {}
    assert store.references(payload) is None
    assert store.release(payload) == 0
    assert tree_of(outside) == before


def test_payload_locked_by_another_process_is_kept(hf: HfCache) -> None:
    payload = hf.add_payload(WEIGHTS, ["models--org--gone/blobs/x"])
    lock = payload.with_name(payload.name + ".lock")
    store = SharedStore(hf.root)

    with held_by_another_process(lock):
        assert store.release(payload) == 0
        assert payload.exists()
    assert store.release(payload) == len(WEIGHTS)


def test_lock_is_held_while_the_link_is_removed(hf: HfCache) -> None:
    repo = shared_repo(hf, "org/a")
    payload = hf.payload(WEIGHTS)
    seen: list[bool] = []

    def unlink_blob() -> None:
        other = FileLock(payload.with_name(payload.name + ".lock"), is_singleton=False)
        try:
            other.acquire(timeout=0)
            other.release()
            seen.append(False)
        except (OSError, RuntimeError):  # Timeout is an OSError
            seen.append(True)
        repo.blob("model.safetensors", WEIGHTS).unlink()

    assert SharedStore(hf.root).release(payload, remove_link=unlink_blob) == len(WEIGHTS)
    assert seen == [True]


def test_payload_with_a_second_hard_link_frees_nothing(hf: HfCache, tmp_path: Path) -> None:
    payload = hf.add_payload(WEIGHTS, ["models--org--gone/blobs/x"])
    os.link(payload, tmp_path / "kept")

    assert SharedStore(hf.root).release(payload) == 0
    assert not payload.exists()
    assert (tmp_path / "kept").read_bytes() == WEIGHTS
