"""`make bench`: runs all benchmarks and prints one table."""

from __future__ import annotations

import asyncio
import importlib.util
import os

from benchmarks import (
    bench_app_start,
    bench_chat,
    bench_cpu,
    bench_download,
    bench_engine,
    bench_far,
    bench_list,
    bench_server,
    bench_version,
)
from benchmarks.measure import Row, arguments, finish, table


def main() -> int:
    """Run all benchmarks and print their results."""
    options = arguments(__doc__ or "").parse_args()
    rows = bench_version.measure(options.rounds)
    listed = bench_list.measure(options.rounds)
    rows += [*listed, *bench_list.growth(listed)]
    times, sizes = bench_app_start.measure(options.rounds)
    rows += [*times, *sizes]
    rows += bench_download.measure(min(options.rounds, 2), mebibytes=256)  # a whole GiB only when run alone
    rows += bench_far.measure(min(options.rounds, 3))  # nine pairs only when run alone
    rows += _inference(options.rounds)
    table("mlxk-tui and its peers, medians of one run", rows)
    return finish(rows, options.strict)


def _inference(rounds: int) -> list[Row]:
    if importlib.util.find_spec("mlx_lm") is None:
        print("mlx-lm is not installed: skipping the inference benchmarks")
        return []
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")  # compiling starts a C++ compiler on a CPU
    rows = asyncio.run(bench_engine.measure(min(rounds, 5)))
    rows += bench_chat.measure(rounds)
    rows += bench_cpu.measure(min(rounds, 5))
    return rows + bench_server.measure(rounds)


if __name__ == "__main__":
    raise SystemExit(main())
