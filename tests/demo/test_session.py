"""A demo session: its folder is removed however the program ends, and nothing else is changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from mlxk_tui.demo import tiny_model
from mlxk_tui.demo.session import DemoSession
from mlxk_tui.ops.contract.terms import Health, ModelType
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.verdict import inspect_repo
from tests.support.waiting import PATIENCE_S

PROGRAM = """
import sys
from mlxk_tui.demo.session import DemoSession

with DemoSession() as session:
    print(session.home, flush=True)
    sys.stdin.read()
"""


def test_folder_exists_as_long_as_the_session() -> None:
    with DemoSession() as session:
        home = session.home
        assert session.cache.root == home / "hub"
        assert len(session.cache.repos()) > 20
    assert not home.exists()


def test_folder_is_removed_after_an_exception() -> None:
    homes: list[Path] = []

    def fail() -> None:
        with DemoSession() as session:
            homes.append(session.home)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert homes[0].name.startswith("mlxk-demo-")
    assert not homes[0].exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name)
def test_folder_is_removed_after_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        home = Path(process.stdout.readline().strip())
        assert home.is_dir()
        process.send_signal(number)
        assert process.wait(PATIENCE_S) != 0
    assert home.name.startswith("mlxk-demo-")
    assert not home.exists()


def test_environment_and_signal_handlers_are_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLXK_API_KEY", "mine:secret")
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with DemoSession() as session:
        assert "MLXK_API_KEY" not in os.environ
        changed = {name for name, value in os.environ.items() if environment.get(name) != value}
        assert changed == {
            *("MLXK_VERDICTS", "MLXK_CONFIG"),
            *("HF_ENDPOINT", "HF_TOKEN", "MLXK2_ENABLE_EXPERIMENTAL_PUSH"),
        }
        assert os.environ["HF_ENDPOINT"].startswith("http://127.0.0.1:")
        for name in ("MLXK_VERDICTS", "MLXK_CONFIG"):
            assert os.environ[name].startswith(str(session.home))
    assert dict(os.environ) == environment
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_hub_starts_with_the_first_request_and_stops_with_the_session() -> None:
    with DemoSession():
        children = psutil.Process().children()
        with urllib.request.urlopen(f"{os.environ['HF_ENDPOINT']}/api/models/{tiny_model.NAME}") as answer:
            assert json.load(answer)["id"] == tiny_model.NAME
        [started] = [child for child in psutil.Process().children() if child not in children]
    assert not started.is_running()


def test_tiny_model_is_in_the_cache_and_can_run() -> None:
    with DemoSession() as session:
        found = session.cache.find("tiny-demo")
        report = inspect_repo(session.cache, found.ref, Runtime.detect())
    assert report.model.health is Health.HEALTHY
    assert report.model.model_type is ModelType.CHAT


def test_session_has_no_cache_before_it_is_entered() -> None:
    with pytest.raises(RuntimeError):
        _ = DemoSession().cache
