"""Times whole processes, in alternation so that noise affects all of them, and prints the results."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
"""Folder for peers and caches."""


@dataclass(frozen=True)
class Command:
    """A command to measure."""

    label: str
    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None
    """Additional environment variables."""


@dataclass(frozen=True)
class Row:
    """One line of a table: our figure and a peer's."""

    what: str
    ours: float
    peer: str
    theirs: float
    unit: str = "ms"
    budget: float | None = None
    """Maximum ratio."""
    lowest_ratio: float | None = None
    """Lower end of the ratio's confidence interval, if known; it is compared with the budget."""

    @property
    def ratio(self) -> float:
        """Our figure divided by the peer's."""
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        """`ok` or `OVER` if there is a budget."""
        if self.budget is None:
            return ""
        ratio = self.ratio if self.lowest_ratio is None else self.lowest_ratio
        return f"{'ok' if ratio <= self.budget else 'OVER'} (budget {self.budget:g}x)"


def seconds(command: Command) -> float:
    """Run a command once, discard its output, and return its duration.

    Raises:
        SystemExit: the command failed; its messages are shown.
    """
    begin = time.perf_counter()
    result = subprocess.run(
        command.argv,
        env={**os.environ, **(command.env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    taken = time.perf_counter() - begin
    if result.returncode != 0:
        sys.stderr.write(result.stderr.decode(errors="replace")[-2000:])
        raise SystemExit(f"{command.label}: exit status {result.returncode}")
    return taken


def medians(commands: Sequence[Command], rounds: int) -> dict[str, float]:
    """Run every command once to warm up, then all in alternation, and return the median seconds by label."""
    for command in commands:
        seconds(command)
    taken: dict[str, list[float]] = {command.label: [] for command in commands}
    for _ in range(rounds):
        for command in commands:
            taken[command.label].append(seconds(command))
    return {label: statistics.median(times) for label, times in taken.items()}


def table(title: str, rows: Sequence[Row]) -> None:
    """Print rows as a table."""
    print(f"\n{title}")
    print(f"{'':34} {'ours':>12} {'peer':>12} {'ratio':>8}  compared with")
    for row in rows:
        ours, theirs = (f"{value:,.1f} {row.unit}" for value in (row.ours, row.theirs))
        print(f"{row.what:34} {ours:>12} {theirs:>12} {row.ratio:>7.2f}x  {row.peer}  {row.verdict}".rstrip())


def finish(rows: Sequence[Row], strict: bool) -> int:
    """Return the exit status: 1 if a budget is exceeded and `strict` is set."""
    over = [row for row in rows if row.verdict.startswith("OVER")]
    return 1 if strict and over else 0


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each command (default 7)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a budget is exceeded")
    return parser


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Create a temporary folder in build/bench."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=BUILD) as folder:
        yield Path(folder)
