"""`mlxk-headless --version` compared with importing its two main libraries."""

from __future__ import annotations

import sys

from benchmarks.measure import Command, Row, arguments, finish, medians, table

BUDGET = 1.5


def measure(rounds: int) -> list[Row]:
    """Return the rows of this benchmark."""
    ours = Command("ours", (sys.executable, "-m", "mlxk_tui_headless", "--version"))
    code = "import typer, pydantic"
    peer = Command("imports", (sys.executable, "-c", code))
    bare = Command("bare", (sys.executable, "-c", "pass"))
    found = {label: 1000 * taken for label, taken in medians([ours, peer, bare], rounds).items()}
    return [
        Row("--version", found["ours"], f"python -c '{code}'", found["imports"], budget=BUDGET),
        Row("--version", found["ours"], "python -c pass", found["bare"]),
    ]


def main() -> int:
    """Run the benchmark and print its results."""
    options = arguments(__doc__ or "").parse_args()
    rows = measure(options.rounds)
    table("Start of mlxk-headless", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
