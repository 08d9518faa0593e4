"""The local hub as a separate process, and the contents of the demo's hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from mlxk_tui.demo import tiny_model
from mlxk_tui.demo.hub import Fault, HubProcess, LocalHub, seed_demo
from mlxk_tui.demo.sample import SAMPLES, build_sample_cache
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import check_health, list_models
from mlxk_tui.ops.contract.results import ModelType
from tests.support.waiting import PATIENCE_S

NOW = 1_760_000_000.0
OWNER = """
import sys, time
from mlxk_tui.demo.hub import HubProcess
hub = HubProcess().start()
print(hub.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    disable_progress_bars()
    yield
    enable_progress_bars()


@pytest.fixture(scope="module")
def seeded() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        seed_demo(hub)
        yield hub


def test_hub_process_is_controlled_from_outside(tmp_path: Path) -> None:
    (tmp_path / "org" / "one").mkdir(parents=True)
    (tmp_path / "org" / "one" / "config.json").write_text("{}")
    with HubProcess(folder=tmp_path, rate=5e6) as hub:
        resolve = f"{hub.url}/org/one/resolve/main/config.json"
        hub.add_fault(Fault("status", path="*/resolve/*", status=429, retry_after=2))
        with pytest.raises(urllib.error.HTTPError) as limited:
            urllib.request.urlopen(resolve)
        assert limited.value.headers["Retry-After"] == "2"
        with urllib.request.urlopen(resolve) as answer:
            assert answer.read() == b"{}"
        assert [(item["hits"], item["left"]) for item in hub.faults()] == [(1, 0)]
        assert [item["status"] for item in hub.requests()] == [429, 307, 200]
        assert sum(item["bytes_sent"] for item in hub.requests() if item["status"] == 200) == 2
        hub.clear_requests()
        hub.clear_faults()
        hub.set_rate(None)
        assert (hub.requests(), hub.faults()) == ([], [])
        with pytest.raises(urllib.error.HTTPError, match="400"):
            hub.set_rate(-1)
        assert hub.pid is not None
        process = psutil.Process(hub.pid)
        os.kill(hub.pid, signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.slow
def test_hub_process_ends_with_its_killed_owner() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    process = psutil.Process(int(owner.stdout.readline()))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    process.wait(PATIENCE_S)


def test_used_port_is_an_error() -> None:
    with LocalHub() as hub, pytest.raises(RuntimeError, match="did not start"):
        HubProcess(port=int(hub.url.rpartition(":")[2])).start()


def test_demo_hub_has_repos_of_every_kind(seeded: LocalHub) -> None:
    api = HfApi(endpoint=seeded.url, token=False)
    found = {
        item.id: item for item in api.list_models(filter="mlx", sort="downloads", expand=["usedStorage"])
    }
    assert len(found) >= 20
    sizes = [item.used_storage or 0 for item in found.values()]
    assert min(sizes) < 1_000_000
    assert max(sizes) > 100_000_000_000
    assert any(300_000_000 < size < 450_000_000 for size in sizes)
    assert "tester/stories-finetune" not in found
    with pytest.raises(GatedRepoError):
        HfApi(endpoint=seeded.url, token=seeded.GOOD_TOKEN).auth_check("prompt-lab/gemma-2-2b-it-4bit")
    assert api.model_info("mlx-community/Qwen3-0.6B-MLX-4bit").id == "mlx-community/Qwen3-0.6B-4bit"


async def test_models_pulled_from_the_demo_hub_are_healthy(seeded: LocalHub, cache: Cache, hub: Path) -> None:
    names = [
        "mlx-community/stories260K-MLX",
        "mlx-community/stories42M-4bit-sharded",
        tiny_model.NAME,
    ]
    for name in names:
        snapshot_download(name, endpoint=seeded.url, token=False, cache_dir=hub)
    data = await check_health(cache, verify=True)
    assert [entry.name for entry in data.healthy] == sorted(names)
    checksums = [entry.checksums for entry in data.healthy]
    assert all(item is not None and item.mismatched == 0 for item in checksums)
    models = {model.name: model for model in (await list_models(cache)).models}
    assert models[tiny_model.NAME].model_type == ModelType.CHAT


def test_demo_hub_has_the_files_of_the_sample_cache(seeded: LocalHub, tmp_path: Path) -> None:
    """So a pull repairs a broken sample, and a pull of a healthy one has nothing to do."""
    assert tiny_model.install(tmp_path / "hub").name == seeded.repos[tiny_model.NAME].head.oid
    build_sample_cache(tmp_path / "hub", now=NOW)
    compared = 0
    for sample in SAMPLES:
        repo = seeded.repos[sample.name]
        tree = (
            tmp_path / "hub" / f"models--{sample.name.replace('/', '--')}" / "trees" / f"{repo.head.oid}.json"
        )
        if not tree.exists():
            continue
        compared += 1
        assert json.loads(tree.read_text())["files"] == {
            path: {
                "size": entry.blob.size,
                "blob_id": entry.oid,
                **({"lfs_sha256": entry.etag, "lfs_size": entry.blob.size} if entry.lfs else {}),
            }
            for path, entry in repo.head.entries.items()
        }
    assert compared >= len(SAMPLES) * 3 // 4
