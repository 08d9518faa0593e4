"""The text output of `list` and `health` on the user's cache, read-only (opt-in: -m live_list).

Needs HF_HOME (or MLXK2_USER_HF_HOME) with at least one MLX chat model and one MLX base model.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.catalog.catalog import list_models
from mlxk_tui.ops.contract.results import Framework, Model, ModelType

pytestmark = [pytest.mark.live_list, pytest.mark.wet]


def entries(hub: Path) -> dict[str, tuple[int, int]]:
    """Return every entry of the cache with size and time, to check that nothing changes."""
    found = {}
    for folder, folders, names in os.walk(hub):
        for name in [*folders, *names]:
            info = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (info.st_size, info.st_mtime_ns)
    return found


def headless(home: Path, *arguments: str) -> str:
    """Run the headless command on a Hugging Face home and return its output."""
    result = subprocess.run(
        [sys.executable, "-m", "mlxk_tui_headless", *arguments],
        env={**os.environ, "HF_HOME": str(home), "MLXK_VERDICTS": "off", "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture
async def models(user_hf_home: Path) -> list[Model]:
    """Return the user's models; skip without a model of each kind."""
    found = (await list_models(Cache(user_hf_home / "hub"))).models
    mlx = {model.model_type for model in found if model.framework is Framework.MLX}
    if not {ModelType.CHAT, ModelType.BASE} <= mlx:
        pytest.skip("the cache needs at least one MLX chat model and one MLX base model")
    return found


def names(models: list[Model], *kinds: ModelType) -> set[str]:
    """Return the names of MLX models of these types."""
    return {model.name for model in models if model.framework is Framework.MLX and model.model_type in kinds}


def listed(text: str) -> set[str]:
    """Return the first column of a printed list."""
    return {line.split()[0] for line in text.splitlines()[1:] if line.strip()}


def short(found: set[str]) -> set[str]:
    """Return names as the default list shows them, without mlx-community."""
    return {name.removeprefix("mlx-community/") for name in found}


def test_list_shows_chat_models_and_verbose_also_base_models(user_hf_home: Path, models: list[Model]) -> None:
    chat, base = names(models, ModelType.CHAT), names(models, ModelType.BASE)
    default = listed(headless(user_hf_home, "list"))
    assert short(chat) <= short(default)
    assert not short(base) & short(default)
    assert chat | base <= listed(headless(user_hf_home, "list", "--verbose"))


def test_all_shows_every_repo_with_its_health(user_hf_home: Path, models: list[Model]) -> None:
    text = headless(user_hf_home, "list", "--all", "--health")
    assert {model.name for model in models} <= listed(text)
    assert "Health" in text.splitlines()[0]


def test_health_counts_every_repo(user_hf_home: Path, models: list[Model]) -> None:
    text = headless(user_hf_home, "health")
    good = sum(model.health.value == "healthy" for model in models)
    summary = f"Summary: total {len(models)}, healthy {good}, unhealthy {len(models) - good}"
    assert summary in text.splitlines()


def test_listing_changes_nothing_in_the_users_cache(user_hf_home: Path) -> None:
    before = entries(user_hf_home / "hub")
    headless(user_hf_home, "list", "--all", "--health")
    headless(user_hf_home, "health")
    assert entries(user_hf_home / "hub") == before
