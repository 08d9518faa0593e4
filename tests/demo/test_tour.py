"""The headless tour runs every command on the sample and fails if one does not work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui.demo.session import DemoSession
from mlxk_tui.demo.tour import TourStep, run_step, tour_steps


@pytest.mark.slow
def test_tour_succeeds_and_leaves_no_files() -> None:
    tour = subprocess.run(
        [sys.executable, "-m", "mlxk_tui.demo.tour"], capture_output=True, text=True, timeout=300, check=False
    )
    assert (tour.returncode, tour.stderr) == (0, "")
    commands = {line.split()[2] for line in tour.stdout.splitlines() if line.startswith("$ ")}
    commands.discard("run")  # needs MLX
    assert commands == {"list", "health", "show", "rm", "prune", "clone", "search", "pull", "update", "lock"}
    assert not Path(tour.stdout.splitlines()[0].rpartition(" ")[2]).exists()


@pytest.mark.slow
def test_unexpected_output_fails_the_tour() -> None:
    with DemoSession() as session:
        good = tour_steps(session.home)[0]
        assert run_step(good, session.cache.root) is None
        for bad in (
            TourStep("", good.arguments, exit_code=3),
            TourStep("", good.arguments, output=("no such text",)),
            TourStep("", (*good.arguments, "--json"), data=lambda data: data["count"] == 1),
            TourStep("", good.arguments, data=lambda data: True),
            TourStep("", good.arguments, check=lambda: False),
        ):
            assert run_step(bad, session.cache.root) is not None
