"""`make bench`: every benchmark in one run, and one table at the end."""

from __future__ import annotations

from benchmarks import bench_app_start, bench_download, bench_list, bench_version
from benchmarks.measure import arguments, finish, table


def main() -> int:
    """Run all benchmarks and print what they found."""
    options = arguments(__doc__ or "").parse_args()
    rows = bench_version.measure(options.rounds)
    listed = bench_list.measure(options.rounds)
    rows += [*listed, *bench_list.growth(listed)]
    times, sizes = bench_app_start.measure(options.rounds)
    rows += [*times, *sizes]
    rows += bench_download.measure(min(options.rounds, 2), mebibytes=256)  # a GiB has a run of its own
    table("mlxk-tui against its peers, medians of one run", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
