"""Bugs of MLX-Knife that these commands must not have, one test for each."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.headless.running import call, headless
from tests.support.hf_cache import HfCache, model_files, tree_of

A = "org/A"


def _hashes(hub: Path) -> dict[str, str]:
    return {model["name"]: model["hash"] for model in call("list", "--json", hub=hub).data["models"]}


def test_rm_removes_only_the_given_revision(hub: Path) -> None:
    repo = HfCache(hub).repo(A)
    main = repo.add(model_files())
    old = repo.add(model_files(fill=b"\x02"), refs=["v1"])
    assert call("rm", f"{A}@{old[:8]}", "--json", hub=hub).data["revision"] == old
    assert (repo.snapshot(main).exists(), repo.snapshot(old).exists()) == (True, False)
    assert _hashes(hub) == {A: main}


@pytest.mark.parametrize(
    "name", ["../outside", "a/../../outside", "models--../outside", "..", "/outside", "a//b"]
)
def test_rm_deletes_nothing_outside_the_cache_for_a_crafted_name(name: str, hub: Path) -> None:
    HfCache(hub).repo(A).add(model_files())
    outside = hub.parent / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (hub / "models--link--out").symlink_to(outside)
    (hub / "models--..--outside").mkdir()
    before = tree_of(hub.parent)
    assert call("rm", "-f", name, "--json", hub=hub).error["type"] == "validation_error"
    assert call("rm", "-f", "link/out", "--json", hub=hub).status == 1
    assert tree_of(hub.parent) == before


@pytest.mark.parametrize("name", ["", " ", "@", f"{A}@", f"{A}@ ", "@main"])
def test_rm_rejects_an_empty_name_or_revision(name: str, hub: Path) -> None:
    HfCache(hub).repo(A).add(model_files())
    before = tree_of(hub)
    for flags in ([], ["-f"]):
        assert call("rm", *flags, "--json", "--", name, hub=hub).error["type"] == "validation_error"
    assert tree_of(hub) == before


def test_rm_with_a_partial_name_is_an_error(hub: Path) -> None:
    repo = HfCache(hub).repo("org/Model")
    repo.add(model_files())
    result = call("rm", "mod", "--json", hub=hub)
    assert (result.status, result.envelope["status"], repo.path.exists()) == (1, "error", True)


def test_commit_is_looked_up_only_in_the_named_model(hub: Path) -> None:
    cache = HfCache(hub)
    cache.repo(A).add(model_files(), commit="1" * 40)
    cache.repo(f"{A}-Large").add(model_files(), commit="abc" + "2" * 37)
    result = call("show", f"{A}@abc", "--json", hub=hub)
    assert result.error["type"] == "revision_not_found"
    assert result.error["available_hashes"] == ["1" * 40]


def test_health_checks_the_snapshot_of_main(hub: Path) -> None:
    repo = HfCache(hub).repo(A)
    main = repo.add(model_files(), modified=1_700_000_000.0)
    repo.add({"config.json": b"[]"}, refs=["broken"], modified=1_750_000_000.0)
    assert call("health", A, "--json", hub=hub).data["summary"]["healthy_count"] == 1
    assert _hashes(hub) == {A: main}
    repo.ref("main", repo.add({"config.json": b"[]"}, refs=[], modified=1_600_000_000.0))
    assert call("health", A, "--json", hub=hub).data["summary"]["unhealthy_count"] == 1


def test_broken_repo_is_a_single_unhealthy_row(hub: Path) -> None:
    cache = HfCache(hub)
    cache.repo("org/Healthy").add(model_files())
    cache.repo("org/List").add({**model_files(), "config.json": b"[1, 2]"})
    dangling = cache.repo("org/Dangling")
    dangling.add(model_files(), tree=False)
    dangling.blob("model.safetensors", model_files()["model.safetensors"]).unlink()
    models = {m["name"]: m["health"] for m in call("list", "--json", hub=hub).data["models"]}
    assert models == {"org/Dangling": "unhealthy", "org/List": "unhealthy", "org/Healthy": "healthy"}
    assert call("health", "--json", hub=hub).data["summary"] == {
        "total": 3,
        "healthy_count": 1,
        "unhealthy_count": 2,
    }


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(model_files()["model.safetensors"][:-1], id="truncated"),
        pytest.param(b"\0" * 4096, id="zeroed"),
        pytest.param(os.urandom(4096), id="garbage"),
        pytest.param(b"", id="empty"),
    ],
)
def test_damaged_weights_are_unhealthy(weights: bytes, hub: Path) -> None:
    HfCache(hub).repo(A).add({**model_files(), "model.safetensors": weights}, tree=False)
    assert call("health", A, "--json", hub=hub).data["summary"]["unhealthy_count"] == 1


def test_file_with_partial_in_its_name_is_healthy(hub: Path) -> None:
    HfCache(hub).repo(A).add({**model_files(), "partial_rotary.md": b"about partial rotary embeddings"})
    assert call("health", A, "--json", hub=hub).data["summary"]["healthy_count"] == 1


def test_timestamps_are_utc(hub: Path) -> None:
    moment = 1_756_555_200.0
    HfCache(hub).repo(A).add(model_files(), modified=moment)
    result = headless("list", "--json", hub=hub, env={"TZ": "Pacific/Auckland"})
    expected = datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert result.data["models"][0]["last_modified"] == expected


def test_verbose_does_not_change_the_json(hub: Path) -> None:
    HfCache(hub).repo(A).add(model_files())
    for command in (["list"], ["health"]):
        plain = call(*command, "--json", hub=hub)
        assert call(*command, "--json", "--verbose", hub=hub).stdout == plain.stdout


def test_json_option_works_before_the_command(hub: Path) -> None:
    assert json.loads(call("--json", "list", hub=hub).stdout)["command"] == "list"


def test_hf_hub_cache_overrides_hf_home(hub: Path, tmp_path: Path) -> None:
    HfCache(tmp_path / "other").repo(A).add(model_files())
    assert call("list", "--json", hub=tmp_path / "other").data["count"] == 1
    assert os.environ["HF_HOME"] == str(hub.parent)
    assert headless("list", "--json", hub=tmp_path / "other", env={"HF_HUB_CACHE": ""}).data["count"] == 0
