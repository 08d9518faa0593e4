"""A demo session: its folder goes away however the program ends, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui.demo.session import DemoSession

PROGRAM = """
import sys
from mlxk_tui.demo.session import DemoSession

with DemoSession() as session:
    print(session.home, flush=True)
    sys.stdin.read()
"""


def test_the_folder_lives_as_long_as_the_session() -> None:
    with DemoSession() as session:
        home = session.home
        assert session.cache.root == home / "hub"
        assert len(session.cache.repos()) > 20
    assert not home.exists()


def test_an_exception_does_not_leave_the_folder_behind() -> None:
    homes: list[Path] = []

    def fail() -> None:
        with DemoSession() as session:
            homes.append(session.home)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert homes[0].name.startswith("mlxk-demo-")
    assert not homes[0].exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_does_not_leave_the_folder_behind(number: signal.Signals) -> None:
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
        assert process.wait(30) != 0
    assert home.name.startswith("mlxk-demo-")
    assert not home.exists()


def test_afterwards_the_environment_and_the_signal_handlers_are_as_before() -> None:
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    with DemoSession() as session:
        changed = {name for name, value in os.environ.items() if environment.get(name) != value}
        assert changed == {"MLXK_VERDICTS"}
        assert os.environ["MLXK_VERDICTS"].startswith(str(session.home))
    assert dict(os.environ) == environment
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_session_that_was_not_entered_has_no_cache() -> None:
    with pytest.raises(RuntimeError):
        _ = DemoSession().cache
