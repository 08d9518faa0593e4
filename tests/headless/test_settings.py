"""The command also reads the config file; the environment overrides it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.headless.running import TIMEOUT
from tests.support.hf_cache import HfCache, model_files


@pytest.fixture
def caches(tmp_path: Path) -> dict[str, Path]:
    """Several caches, each with one model of the same name."""
    made = {}
    for name in ("config", "hub", "own", "option"):
        HfCache(tmp_path / name).repo(f"org/{name}").add(model_files())
        made[name] = tmp_path / name
    return made


def _listed(config: Path, *arguments: str, **environ: str) -> tuple[list[str], str]:
    dropped = {"HF_HOME", "HF_HUB_CACHE", "MLXK_CACHE_DIR"}
    base = {name: value for name, value in os.environ.items() if name not in dropped}
    done = subprocess.run(
        [sys.executable, "-m", "mlxk_tui_headless", *arguments, "list", "--json"],
        env={**base, "MLXK_CONFIG": str(config), "PYTHONPATH": os.pathsep.join(sys.path), **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    return [model["name"] for model in json.loads(done.stdout)["data"]["models"]], done.stderr


@pytest.mark.slow
def test_cache_folder_has_the_documented_precedence(tmp_path: Path, caches: dict[str, Path]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'cache_dir = "{caches["config"]}"\n')
    hub, own = {"HF_HUB_CACHE": str(caches["hub"])}, {"MLXK_CACHE_DIR": str(caches["own"])}
    assert _listed(config) == (["org/config"], "")
    assert _listed(config, **hub)[0] == ["org/hub"]
    assert _listed(config, **hub, **own)[0] == ["org/own"]
    assert _listed(config, "--cache-dir", str(caches["option"]), **hub, **own)[0] == ["org/option"]


def test_broken_config_file_is_a_warning_on_stderr(tmp_path: Path, caches: dict[str, Path]) -> None:
    config = tmp_path / "config.toml"
    config.write_text("cache_dir = [")
    names, warning = _listed(config, HF_HUB_CACHE=str(caches["hub"]))
    assert names == ["org/hub"]
    assert warning.startswith("Warning: ")
    assert str(config) in warning
