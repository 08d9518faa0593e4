"""`list` and `health` with 100, 500 and 2,000 repos, compared with mlx-knife, `hf cache ls` and a walk."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks import caches, peers
from benchmarks.measure import Command, Row, arguments, finish, medians, scratch, table

COUNTS = (100, 500, 2000)
BUDGET = 0.12
"""Maximum time of `list` with 500 repos relative to mlx-knife's."""
LINEAR = 1.15
"""Maximum time of one more repo among many, relative to one more among few."""


def measure(rounds: int, counts: tuple[int, ...] = COUNTS) -> list[Row]:
    """Return the rows of this benchmark."""
    command, version = peers.knife()
    rows: list[Row] = []
    for count in counts:
        with scratch(f"list-{count}") as folder:
            hub = folder / "hub"
            caches.build(hub, count)
            # The slow programs take seconds with thousands of repos: fewer rounds suffice.
            rows += _at(hub, count, rounds if count < 1000 else max(3, rounds // 2), command, version)
    return rows


def _at(hub: Path, count: int, rounds: int, knife: str, version: str) -> list[Row]:
    env = {"HF_HOME": str(hub.parent), "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    stored, fresh = {**env, "MLXK_VERDICTS": str(hub.parent / "verdicts")}, {**env, "MLXK_VERDICTS": "off"}
    ours = (sys.executable, "-m", "mlxk_tui_headless")
    _wait_until_settled(hub)
    found = medians(
        [
            Command("ours list", (*ours, "list", "--json"), stored),
            Command("ours first list", (*ours, "list", "--json"), fresh),
            Command("ours health", (*ours, "health", "--json"), stored),
            Command("knife list", (knife, "list", "--json"), env),
            Command("knife health", (knife, "health", "--json"), env),
            Command("hf cache ls", (peers.hf(), "cache", "ls"), env),
            Command("walk", (sys.executable, "-c", peers.SCANDIR_WALK, str(hub)), env),
        ],
        rounds,
    )
    ms = {label: 1000 * taken for label, taken in found.items()}
    peer = f"mlx-knife {version}"
    return [
        Row(f"list --json, {count:,} repos", ms["ours list"], peer, ms["knife list"],
            budget=BUDGET if count == 500 else None),
        Row(_first(count), ms["ours first list"], peer, ms["knife list"]),
        Row(f"health --json, {count:,} repos", ms["ours health"], peer, ms["knife health"]),
        Row(f"list --json, {count:,} repos", ms["ours list"], "hf cache ls", ms["hf cache ls"]),
        Row(f"list --json, {count:,} repos", ms["ours list"], "bare os.scandir walk", ms["walk"]),
    ]  # fmt: skip


def _wait_until_settled(hub: Path) -> None:
    """Wait until the cache is old enough for its verdicts to be stored (two seconds)."""
    newest = max(path.stat().st_ctime for path in (hub, *hub.iterdir()))
    while time.time() < newest + 3:
        time.sleep(0.1)


def growth(rows: list[Row], counts: tuple[int, ...] = COUNTS) -> list[Row]:
    """Return how the time of one more repo grows without stored verdicts: 1.00x is linear."""
    listed = {row.what: row.ours for row in rows}
    times = [listed[_first(count)] for count in counts]
    steps = [(times[n + 1] - times[n]) / (counts[n + 1] - counts[n]) for n in range(len(counts) - 1)]
    if len(steps) < 2:
        return []
    what = f"one more repo, {counts[-2]:,} to {counts[-1]:,}"
    return [
        Row(what, steps[-1], f"one more repo, {counts[-3]:,} to {counts[-2]:,}", steps[-2], budget=LINEAR)
    ]


def _first(count: int) -> str:
    return f"list --json, {count:,}, first time"


def main() -> int:
    """Run the benchmark and print its results."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of repos")
    options = parser.parse_args()
    counts = tuple(sorted(options.counts))
    rows = measure(options.rounds, counts)
    rows += growth(rows, counts)
    table("list and health", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
