"""Whether a healthy model can run here, detected without importing mlx-lm."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import inspect_model
from mlxk_tui.ops.contract.results import FindingCode, MemoryFit
from mlxk_tui.ops.health.machine import Runtime, usable_memory
from mlxk_tui.ops.health.report import Report
from tests.ops.health.test_integrity import RUNTIME
from tests.support.hf_cache import HfCache, model_files

NAME = "mlx-community/Model-Instruct"


async def _run(
    cache: Cache, hub: Path, files: dict[str, bytes], runtime: Runtime = RUNTIME, name: str = NAME
) -> Report:
    HfCache(hub).repo(name).add(files)
    return await inspect_model(cache, name, runtime=runtime)


async def test_healthy_model_of_a_supported_architecture_is_runnable(cache: Cache, hub: Path) -> None:
    report = await _run(cache, hub, model_files())
    assert report.model.runtime_compatible
    assert report.model.reason is None
    assert report.model.memory_fit is MemoryFit.FITS


async def test_architecture_remapped_by_mlx_lm_is_runnable(cache: Cache, hub: Path) -> None:
    assert (await _run(cache, hub, model_files(config={"model_type": "mistral"}))).model.runtime_compatible


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"model_type": "novel_arch"}, FindingCode.ARCHITECTURE_UNKNOWN),
        ({"model_type": "../../evil"}, FindingCode.ARCHITECTURE_UNKNOWN),
        ({"model_type": None}, FindingCode.ARCHITECTURE_UNKNOWN),
        ({"model_type": ["llama"]}, FindingCode.ARCHITECTURE_UNKNOWN),
        ({"model_type": "novel_arch", "auto_map": {"AutoModel": "m.M"}}, FindingCode.CUSTOM_CODE),
        ({"model_file": "model.py"}, FindingCode.CUSTOM_CODE),
    ],
)
async def test_unsupported_models_have_a_reason(
    cache: Cache, hub: Path, config: dict[str, object], code: FindingCode
) -> None:
    report = await _run(cache, hub, model_files(config=config))
    assert report.findings[0].code is code
    assert report.model.health.value == "healthy"
    assert not report.model.runtime_compatible
    assert report.model.reason == report.findings[0].message


async def test_supported_architecture_with_an_auto_map_is_runnable(cache: Cache, hub: Path) -> None:
    files = model_files(config={"auto_map": {"AutoConfig": "configuration.C"}})
    assert (await _run(cache, hub, files)).model.runtime_compatible


async def test_missing_tokenizer_or_renamed_weights_are_not_runnable(cache: Cache, hub: Path) -> None:
    files = model_files()
    del files["tokenizer.json"]
    files["weights.safetensors"] = files.pop("model.safetensors")
    codes = [finding.code for finding in (await _run(cache, hub, files)).findings]
    assert codes == [FindingCode.WEIGHTS_NOT_LOADABLE, FindingCode.TOKENIZER_MISSING]


async def test_other_frameworks_are_not_runnable(cache: Cache, hub: Path) -> None:
    files = {**model_files(config={"quantization": None}), "README.md": b"x"}
    report = await _run(cache, hub, files, name="org/Torch-Instruct")
    assert [finding.code for finding in report.findings] == [FindingCode.FRAMEWORK_UNSUPPORTED]


async def test_missing_mlx_lm_is_the_reason(cache: Cache, hub: Path) -> None:
    report = await _run(cache, hub, model_files(), Runtime(None, frozenset(), memory_bytes=1))
    assert report.findings[0].code is FindingCode.MLX_LM_MISSING


@pytest.mark.parametrize(
    ("memory", "fit", "codes"),
    [
        (16_000_000_000, MemoryFit.FITS, []),
        (300_000_000, MemoryFit.TIGHT, [FindingCode.MEMORY_TIGHT]),
        (100_000_000, MemoryFit.TOO_LARGE, [FindingCode.MEMORY_TOO_LARGE]),
    ],
)
async def test_memory_fit_does_not_affect_whether_a_model_is_runnable(
    cache: Cache, hub: Path, memory: int, fit: MemoryFit, codes: list[FindingCode]
) -> None:
    runtime = Runtime("0.32", frozenset({"llama"}), memory_bytes=memory)
    report = await _run(cache, hub, model_files(), runtime)
    assert report.model.memory_fit is fit
    assert [finding.code for finding in report.findings] == codes
    assert report.model.runtime_compatible


def test_usable_memory_is_less_than_the_total() -> None:
    assert 0 < usable_memory(16 * 2**30) < 16 * 2**30


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm has no build here")
def test_installed_mlx_lm_is_inspected_without_importing_it() -> None:
    """The package, imported in a separate process, matches the information read from its files."""
    here = Runtime.detect()
    code = (
        "import mlx_lm, importlib; from mlx_lm import utils; print(mlx_lm.__version__); "
        "print(sorted(utils.MODEL_REMAPPING.items())); "
        "print(all(hasattr(importlib.import_module('mlx_lm.models.' + m), 'ModelArgs') "
        "for m in ('llama', 'qwen2', 'qwen3', 'gemma3', 'phi3')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, remapping, sound = done.stdout.splitlines()[-3:]
    assert here.mlx_lm == version
    assert str(sorted(here.remapping.items())) == remapping
    assert sound == "True"
    assert {"llama", "qwen2", "qwen3", "gemma3", "phi3"} <= here.architectures
    assert not {"base", "cache", "switch_layers", "__init__"} & here.architectures
    assert here.module_for("mistral") == "llama"
