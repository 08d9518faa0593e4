"""The sample cache: real layout, correct checksums, and every kind of fault."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.errors import IncompleteSnapshotError

from mlxk_tui.demo.checksums import CHECKSUMS
from mlxk_tui.demo.sample import SAMPLES, build_sample_cache, large_payloads
from mlxk_tui.demo.session import DemoSession
from mlxk_tui.demo.weights import Payload
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import check_health, list_models
from mlxk_tui.ops.contract.results import Finding, FindingCode, Framework, MemoryFit, ModelType
from mlxk_tui.ops.remove.prune import plan_prune
from tests.support.hf_cache import tree_of

NOW = 1_760_000_000.0

BROKEN = {
    "mlx-community/DeepSeek-R1-Distill-Qwen-1.5B-4bit": FindingCode.NO_SNAPSHOT,
    "mlx-community/Mistral-Nemo-Instruct-2407-4bit": FindingCode.LFS_POINTER,
    "mlx-community/Mixtral-8x7B-Instruct-v0.1-4bit": FindingCode.SHARD_MISSING,
    "mlx-community/OLMo-2-1124-7B-Instruct-4bit": FindingCode.BROKEN_LINK,
    "mlx-community/Phi-3.5-mini-instruct-4bit": FindingCode.WEIGHTS_TRUNCATED,
    "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit": FindingCode.DOWNLOAD_UNFINISHED,
    "mlx-community/SmolLM3-3B-4bit": FindingCode.CONFIG_INVALID,
    "mlx-community/gemma-2-9b-it-4bit": FindingCode.SHARD_WITHOUT_INDEX,
}
"""What must be found in the unsound repos; all others are sound."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    """One sample for all tests that only read it."""
    root = tmp_path_factory.mktemp("sample") / "hub"
    build_sample_cache(root, now=NOW)
    before = tree_of_names(root)
    yield Cache(root)
    assert tree_of_names(root) == before, "a test that should only read has written"


def tree_of_names(root: Path) -> list[str]:
    """Return every path below a folder."""
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)


async def findings_of(cache: Cache, name: str, *, verify: bool = False) -> list[Finding]:
    """Return the findings of one model."""
    data = await check_health(cache, name, verify=verify)
    return (data.healthy + data.unhealthy)[0].findings


async def test_sample_has_exactly_the_intended_broken_repos(sample: Cache) -> None:
    data = await check_health(sample)
    assert {entry.name for entry in data.unhealthy} == set(BROKEN)
    assert data.summary.total == len(SAMPLES)


@pytest.mark.parametrize(("name", "code"), BROKEN.items())
async def test_every_fault_is_found(sample: Cache, name: str, code: FindingCode) -> None:
    assert code in [finding.code for finding in await findings_of(sample, name)]


async def test_wrong_byte_is_found_only_by_its_checksum(sample: Cache) -> None:
    name = "mlx-community/SmolLM2-135M-Instruct-4bit"
    rotten = FindingCode.CHECKSUM_MISMATCH
    assert rotten not in [finding.code for finding in await findings_of(sample, name)]
    assert rotten in [finding.code for finding in await findings_of(sample, name, verify=True)]


@pytest.mark.parametrize(
    "name", ["sentence-transformers/all-MiniLM-L6-v2", "mlx-community/Qwen3-Embedding-0.6B-4bit-DWQ"]
)
async def test_healthy_model_passes_verification(sample: Cache, name: str) -> None:
    data = await check_health(sample, name, verify=True)
    checksums = data.healthy[0].checksums
    assert checksums is not None
    assert (checksums.mismatched, checksums.unverifiable) == (0, 0)
    assert checksums.bytes > 90_000_000


async def test_sample_has_models_of_every_kind(sample: Cache) -> None:
    models = (await list_models(sample)).models
    assert {model.framework for model in models} >= {Framework.MLX, Framework.GGUF, Framework.PYTORCH}
    assert {model.model_type for model in models} >= {ModelType.CHAT, ModelType.BASE, ModelType.EMBEDDING}
    assert {model.quantization.bits for model in models if model.quantization} == {4, 8}
    assert {modality.value for model in models for modality in model.modalities} == {"vision", "audio"}
    largest = max(models, key=lambda model: model.size_bytes)
    assert largest.size_bytes == pytest.approx(132.2e9, rel=0.01)
    assert largest.memory_fit in {MemoryFit.TOO_LARGE, MemoryFit.TIGHT, MemoryFit.FITS}


async def test_sample_has_every_kind_of_prunable_data() -> None:
    with DemoSession() as session:  # staleness depends on the clock
        plan = await plan_prune(session.cache)
    assert (len(plan.revisions), len(plan.blobs), len(plan.incomplete)) == (1, 1, 1)


def test_huggingface_hub_can_scan_the_sample(sample: Cache) -> None:
    info = scan_cache_dir(sample.root)
    seen = {repo.repo_id for repo in info.repos if repo.repo_type == "model"}
    refused = {"mlx-community/DeepSeek-R1-Distill-Qwen-1.5B-4bit"}  # it ignores repos without a snapshot, and
    refused |= {"mlx-community/OLMo-2-1124-7B-Instruct-4bit"}  # with a broken link
    assert seen | refused == {each.name for each in SAMPLES}
    assert seen & refused == set()


def test_huggingface_hub_accepts_only_the_complete_model(sample: Cache) -> None:
    sound = snapshot_download(
        "mlx-community/Qwen3-4B-Instruct-2507-4bit", cache_dir=sample.root, local_files_only=True
    )
    assert (Path(sound) / "model.safetensors").stat().st_size == pytest.approx(2.26e9, rel=0.01)
    with pytest.raises(IncompleteSnapshotError):
        snapshot_download(
            "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit", cache_dir=sample.root, local_files_only=True
        )


def test_two_repos_share_one_payload(sample: Cache) -> None:
    payloads = {
        (sample.root / f"models--{name}" / "snapshots").glob("*/model.safetensors").__next__().resolve()
        for name in (
            "mlx-community--Qwen3-4B-Instruct-2507-4bit",
            "lmstudio-community--Qwen3-4B-Instruct-2507-MLX-4bit",
        )
    }
    assert [path.parent.parent for path in payloads] == [sample.root.resolve() / "blobs"]


def test_sample_takes_little_disk_space(sample: Cache) -> None:
    files = [os.lstat(path) for path in tree_of_names(sample.root)]
    assert sum(file.st_size for file in files) > 200e9
    assert sum(file.st_blocks * 512 for file in files) < 30e6


def test_sample_is_reproducible(sample: Cache, tmp_path: Path) -> None:
    build_sample_cache(tmp_path / "hub", now=NOW)
    names = [str(Path(path).relative_to(sample.root)) for path in tree_of_names(sample.root)]
    assert names == [str(Path(p).relative_to(tmp_path / "hub")) for p in tree_of_names(tmp_path / "hub")]
    for name in names:
        first, second = os.lstat(sample.root / name), os.lstat(tmp_path / "hub" / name)
        assert first.st_size == second.st_size
        if name.startswith("models--"):
            assert first.st_mtime == second.st_mtime
    card = "models--prompt-lab--TinyLlama-1.1B-Chat-markup"
    assert tree_of(sample.root / card / "refs") == tree_of(tmp_path / "hub" / card / "refs")


def test_stored_checksums_belong_to_files() -> None:
    needed = {payload.key for _, payload in large_payloads()}
    assert needed == set(CHECKSUMS)


@pytest.mark.parametrize(
    "payload", [p for _, p in large_payloads() if p.size < 700e6], ids=lambda payload: payload.key
)
def test_stored_checksums_match_the_contents(payload: Payload) -> None:
    assert payload.compute_sha256() == CHECKSUMS[payload.key]
