"""The server for the programs, and a function that runs them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import PROGRAMS, UnavailableError, python_of
from tests.server.served import BABBLER, TINY, Served, fill

_TIMEOUT_S = 900
HERE = Path(__file__).parent

RunProgram = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server with the tiny model and two models of random weights."""
    scratch = tmp_path_factory.mktemp("clients")
    fill(scratch / "hub", scratch)
    served = Served(scratch / "hub")
    yield served
    served.close()


@pytest.fixture
def run_program(served: Served, tmp_path: Path) -> RunProgram:
    """Return a function that runs Python of a program's environment with a temporary home."""

    def run(name: str, *arguments: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        if not PROGRAMS[name].small and not os.environ.get("MLXK2_LONG_TESTS"):
            pytest.skip(f"{name} is large; `make clients` runs it")
        try:
            python = python_of(name)
        except UnavailableError as error:
            pytest.skip(f"{name} cannot be installed: {error}")
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "SERVER_URL": served.address.url,
            "SERVER_MODEL": TINY,
            "SERVER_OTHER_MODEL": BABBLER,
            **more,
        }
        done = subprocess.run(
            [str(python), *arguments],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done

    return run


def last_json(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the JSON in the last line of a program's output."""
    return json.loads(done.stdout.strip().splitlines()[-1])
