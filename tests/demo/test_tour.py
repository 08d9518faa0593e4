"""The headless tour runs every command on the sample and fails if one does not work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui.demo.session import DemoSession
from mlxk_tui.demo.tour import Stop, stops, visit


@pytest.mark.slow
def test_tour_succeeds_and_leaves_no_files() -> None:
    tour = subprocess.run(
        [sys.executable, "-m", "mlxk_tui.demo.tour"], capture_output=True, text=True, timeout=300, check=False
    )
    assert (tour.returncode, tour.stderr) == (0, "")
    commands = {line.split()[2] for line in tour.stdout.splitlines() if line.startswith("$ ")}
    commands.discard("run")  # needs MLX
    assert commands == {"list", "health", "show", "rm", "prune", "clone", "search", "pull"}
    assert not Path(tour.stdout.splitlines()[0].rpartition(" ")[2]).exists()


def test_unexpected_output_fails_the_tour() -> None:
    with DemoSession() as session:
        good = stops(session.home)[0]
        assert visit(good, session.cache.root) is None
        for bad in (
            Stop("", good.arguments, exit_code=3),
            Stop("", good.arguments, output=("no such text",)),
            Stop("", (*good.arguments, "--json"), data=lambda data: data["count"] == 1),
            Stop("", good.arguments, data=lambda data: True),
            Stop("", good.arguments, holds=lambda: False),
        ):
            assert visit(bad, session.cache.root) is not None
