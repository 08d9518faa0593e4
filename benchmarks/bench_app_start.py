"""Startup of `mlxk-tui` in a real terminal: first frame and rows, compared with an empty Textual app."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks import caches
from benchmarks.measure import Row, arguments, finish, scratch, table
from benchmarks.terminal import Start, start

COUNTS = (500, 2000)
BUDGET = 2.0
"""Maximum time to the first usable frame with 500 models, relative to the startup of an empty app."""
MEMORY_BUDGET = 120e6
"""Maximum resident memory of the app's process, in bytes."""

EMPTY_APP = """
from textual.app import App
from textual.widgets import Static

class Empty(App):
    def compose(self):
        yield Static("all is ready")

Empty().run()
"""
FRAME = r"1 Models"
"""The tab strip: the panes are drawn and accept keys."""
ROW = r"Bench-\d{4}"


def measure(rounds: int, counts: tuple[int, ...] = COUNTS) -> tuple[list[Row], list[Row]]:
    """Return the rows for time and the rows for memory."""
    times: list[Row] = []
    sizes: list[Row] = []
    for count in counts:
        with scratch(f"app-{count}") as folder:
            caches.build(folder / "hub", count)
            empty, ours, fresh = _at(folder, count, rounds)
        peer, ready = "an empty Textual app", 1000 * _median(empty, "ready")
        for suffix, starts, budget in (
            ("", ours, BUDGET if count == 500 else None),
            (", first time", fresh, BUDGET if count == 500 else None),
        ):
            at = f"{count:,} models{suffix}"
            times.append(
                Row(f"first frame, {at}", 1000 * _median(starts, "frame"), peer, ready, budget=budget)
            )
            times.append(Row(f"first rows, {at}", 1000 * _median(starts, "rows"), peer, ready))
            times.append(Row(f"all rows, {at}", 1000 * _median(starts, "all"), peer, ready))
        loaded = sorted({library for each in [*ours, *fresh] for library in each.libraries})
        if loaded:
            raise SystemExit(f"The app's process has loaded MLX: {loaded}")
        memory = statistics.median(each.memory for each in ours)
        sizes.append(
            Row(f"resident memory, {count:,} models", memory / 1e6, "an empty Textual app",
                statistics.median(each.memory for each in empty) / 1e6, unit="MB")
        )  # fmt: skip
    return times, sizes


def _at(folder: Path, count: int, rounds: int) -> tuple[list[Start], list[Start], list[Start]]:
    home = {"HF_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub"), "HOME": str(folder / "home")}
    home |= {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
    app = (sys.executable, "-m", "mlxk_tui")
    marks = {"frame": FRAME, "rows": ROW, "all": f"(?<![0-9,]){count:,} models"}
    empty: list[Start] = []
    ours: list[Start] = []
    fresh: list[Start] = []
    for number in range(rounds + 1):
        for starts, argv, patterns, verdicts in (
            (empty, (sys.executable, "-c", EMPTY_APP), {"ready": "all is ready"}, "off"),
            (ours, app, marks, str(folder / "verdicts")),
            (fresh, app, marks, "off"),
        ):
            once = start(argv, patterns, env={**home, "MLXK_VERDICTS": verdicts})
            if number > 0:  # the first round warms up
                starts.append(once)
    return empty, ours, fresh


def _median(starts: list[Start], mark: str) -> float:
    return statistics.median(each.seconds[mark] for each in starts)


def main() -> int:
    """Run the benchmark and print its results."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of models")
    options = parser.parse_args()
    times, sizes = measure(options.rounds, tuple(options.counts))
    table("Start of mlxk-tui", times)
    table(f"Memory of mlxk-tui (budget {MEMORY_BUDGET / 1e6:g} MB), without MLX", sizes)
    over = any(row.ours > MEMORY_BUDGET / 1e6 for row in sizes)
    return 1 if options.strict and over else finish(times, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
