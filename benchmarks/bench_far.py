"""Downloads from a far hub compared with `hf download`: time, with latency and limited rates.

The local hub runs in a separate process behind `benchmarks.far_line`, which delays every byte and limits each
connection. `hf` runs with HF_HUB_DISABLE_XET=1, because the hub only supports plain HTTP. Pairs alternate. A
budget counts as exceeded only if the 90 % confidence interval of the median ratio is above it. The upper
bound of the rate is measured with a client that only reads over sixteen connections.
"""

from __future__ import annotations

import json
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import bench_download as near
from benchmarks.measure import ROOT, Row, arguments, finish, scratch, table
from mlxk_tui.demo.hub import HubProcess

MB = 1_000_000
WALL, LIMITED = 1.0, 0.6
"""Maximum ratios: in general, and if connections are limited and the repo has at least 100 MB."""
_PAIRS = 9
_RESAMPLED = 2000


@dataclass(frozen=True)
class Cell:
    """A repo and a network."""

    name: str
    sizes: tuple[int, ...]
    """Bytes of each file."""
    round_trip_s: float = 0.1
    rate: float | None = 12e6
    """Bytes per second of a connection."""
    total: float | None = None
    """Bytes per second of all connections together."""
    slow_start: bool = False
    named: bool = True
    """Whether `make bench` includes it; the others need `--all`."""

    @property
    def budget(self) -> float:
        """Maximum ratio."""
        return LIMITED if self.rate is not None and sum(self.sizes) >= 100 * MB else WALL


CELLS = (
    Cell("6 MB", (6 * MB,)),
    Cell("24 MB", (24 * MB,)),
    Cell("100 MB", (100 * MB,)),
    Cell("300 MB", (300 * MB,)),
    Cell("100 MB in 40 files", (100 * MB // 40,) * 40),
    Cell("100 MB, 20 ms", (100 * MB,), round_trip_s=0.02),
    Cell("100 MB, 250 ms", (100 * MB,), round_trip_s=0.25),
    Cell("100 MB, 5 MB/s a connection", (100 * MB,), rate=5e6),
    Cell("100 MB, 50 MB/s a connection", (100 * MB,), rate=50e6),
    Cell("24 MB, 20 MB/s for all", (24 * MB,), rate=None, total=20e6),
    Cell("24 MB in 12 files", (2 * MB,) * 12),
    Cell("24 MB, slow start", (24 * MB,), slow_start=True),
    Cell("6 MB, 20 ms", (6 * MB,), round_trip_s=0.02, named=False),
    Cell("6 MB, 250 ms", (6 * MB,), round_trip_s=0.25, named=False),
    Cell("24 MB, 250 ms", (24 * MB,), round_trip_s=0.25, named=False),
    Cell("100 MB, 20 MB/s for all", (100 * MB,), rate=None, total=20e6, named=False),
    Cell("100 MB, slow start", (100 * MB,), slow_start=True, named=False),
    Cell("300 MB, 50 MB/s a connection", (300 * MB,), rate=50e6, named=False),
    Cell("300 MB in 40 files", (300 * MB // 40,) * 40, named=False),
    Cell("6 MB in 200 files", (30_000,) * 200, named=False),
)


class _Line:
    """`benchmarks.far_line` in a separate process."""

    def __init__(self, hub: HubProcess, cell: Cell) -> None:
        ports = [int(url.rpartition(":")[2]) for url in (hub.url, hub.cdn_url)]
        figures = {
            "ports": ports,
            "round_trip_s": cell.round_trip_s,
            "rate": cell.rate,
            "total": cell.total,
            "slow_start": cell.slow_start,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.far_line", json.dumps(figures)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        self.ports: list[int] = json.loads(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.ports[0]}"

    def close(self) -> None:
        """Stop the process."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait(20)


@contextmanager
def _far(hub: HubProcess, cell: Cell) -> Iterator[_Line]:
    line = _Line(hub, cell)
    near_url, hub.url = hub.url, line.url  # both programs use it
    try:
        yield line
    finally:
        hub.url = near_url
        line.close()


def measure(pairs: int = _PAIRS, *, every: bool = False, only: str = "") -> list[Row]:
    """Return the rows of this benchmark.

    Args:
        pairs: number of runs of each program per cell.
        every: whether to include the cells that `make bench` omits.
        only: measures only cells whose name contains this.
    """
    rows: list[Row] = []
    cells = [cell for cell in CELLS if (every or cell.named) and only in cell.name]
    with scratch("far") as folder:
        served = folder / "served"
        for number, cell in enumerate(cells):
            for index, size in enumerate(cell.sizes):
                name = "model.safetensors" if len(cell.sizes) == 1 else f"model-{index:05}.safetensors"
                near.write_file(served / _repo(number) / name, size, number * 1000 + index)
        with HubProcess(folder=served) as hub:
            for number, cell in enumerate(cells):
                with _far(hub, cell) as line:
                    rows.append(_row(hub, line, cell, _repo(number), pairs, folder))
                    table(cell.name, rows[-1:])
    return rows


def _repo(number: int) -> str:
    return f"bench/far-{number}"


def _row(hub: HubProcess, line: _Line, cell: Cell, repo: str, pairs: int, folder: Path) -> Row:
    ratios, ours, theirs = [], [], []
    for number in range(pairs + 1):  # the first warms up the hub's checksums and the page cache
        commands = [near.pull_command(repo), near.hf_command(repo)]
        order = [0, 1] if number % 2 else [1, 0]
        taken = [0.0, 0.0]
        for which in order:
            taken[which] = near.run_once(commands[which], hub, folder).wall
        if number:
            ours.append(taken[0])
            theirs.append(taken[1])
            ratios.append(taken[0] / taken[1])
    low = _lower_bound(ratios)
    ceiling = _ceiling(line.ports[0], hub, repo, cell)
    print(
        f"{cell.name}: ratios {min(ratios):.2f} to {max(ratios):.2f}, 90 % interval of the median from "
        f"{low:.2f}; a client that only reads gets {ceiling / MB:.0f} MB/s"
    )
    mine, other = (1000 * statistics.median(times) for times in (ours, theirs))
    return Row(cell.name, mine, "hf download", other, budget=cell.budget, lowest_ratio=low)


def _lower_bound(ratios: list[float]) -> float:
    """Return the lower end of the 90 % confidence interval of the median, by bootstrap."""
    chosen = random.Random(0)
    medians = sorted(statistics.median(chosen.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLED))
    return medians[int(0.05 * _RESAMPLED)]


def _ceiling(port: int, hub: HubProcess, repo: str, cell: Cell) -> float:
    """Return the rate of sixteen connections that only read, in bytes per second."""
    path = "model.safetensors" if len(cell.sizes) == 1 else "model-00000.safetensors"
    size = min(cell.sizes[0], 8 * MB)
    request = (
        f"GET /{repo}/resolve/main/{path} HTTP/1.1\r\nHost: localhost:{port}\r\n"
        f"Range: bytes=0-{size - 1}\r\nConnection: close\r\n\r\n"
    )
    target = _location(port, request)
    counts: list[int] = []
    threads = [threading.Thread(target=_read, args=(target, size, counts)) for _ in range(16)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


def _location(port: int, request: str) -> tuple[int, str]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request.encode())
        head = connection.makefile("rb").read().decode("latin-1")
    lines = {line.partition(":")[0].lower(): line.partition(": ")[2] for line in head.splitlines()}
    if "location" not in lines:
        return port, request.split(" ")[1]
    _, _, rest = lines["location"].strip().partition("//")
    host, _, path = rest.partition("/")
    return int(host.rpartition(":")[2]), f"/{path}"


def _read(target: tuple[int, str], size: int, counts: list[int]) -> None:
    port, path = target
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nRange: bytes=0-{size - 1}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        count = 0
        while data := connection.recv(1 << 18):
            count += len(data)
    counts.append(count)


def main() -> int:
    """Run the benchmark and print its results."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=_PAIRS)
    parser.add_argument("--all", action="store_true", help="include the cells that make bench omits")
    parser.add_argument("--only", default="", help="measure only cells whose name contains this")
    options: Any = parser.parse_args()
    rows = measure(options.rounds, every=options.all, only=options.only)
    table("downloads from a far hub, medians", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
