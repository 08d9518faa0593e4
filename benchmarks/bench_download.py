"""Downloads compared with `hf download`: time, processor time, memory, and bytes downloaded after a kill.

The local hub runs in a separate process and serves files from disk. `hf` runs with HF_HUB_DISABLE_XET=1,
because the hub only supports plain HTTP. `hf` does not verify checksums; ours does.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import Row, arguments, finish, scratch, table
from mlxk_tui.demo.hub import Generated, HubProcess
from mlxk_tui.demo.hub.blobs import make_blob

BIG, MANY = "bench/big", "bench/many"
LIMITED_BIG, LIMITED_MANY = "bench/limited-big", "bench/limited-many"
RATE = 12e6
"""Bytes per second and connection if the hub limits them."""
WALL = 1.0
"""Maximum time relative to hf's."""
LIMITED = 0.7
"""The same if the hub limits each connection."""
MEMORY_MB = 150.0
TWICE = 0.05
"""Maximum share of the repo that may be downloaded twice after a kill."""


@dataclass(frozen=True)
class Run:
    """Resources used by one run of a program."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, user and system."""
    memory: float
    """Peak resident megabytes."""


def measure(rounds: int, mebibytes: int = 1024) -> list[Row]:
    """Return the rows of this benchmark.

    Args:
        rounds: number of runs of each program.
        mebibytes: size of the single file, and roughly of the many files together.
    """
    many = max(1, mebibytes // 25)
    with scratch("download") as folder:
        served = folder / "served"
        write_file(served / BIG / "model.safetensors", mebibytes << 20, 1)
        write_file(served / LIMITED_BIG / "model.safetensors", 128 << 20, 2)
        for number in range(many):
            write_file(served / MANY / f"model-{number:05}.safetensors", 25 << 20, number + 3)
            write_file(served / LIMITED_MANY / f"model-{number:05}.safetensors", 6 << 20, number + 100)
        with HubProcess(folder=served) as hub:
            rows = _against_hf(hub, BIG, f"1 file of {mebibytes} MiB", folder, rounds)
            rows += _against_hf(hub, MANY, f"{many} files of 25 MiB", folder, rounds)
            hub.set_rate(RATE)
            rows += _limited(hub, LIMITED_BIG, f"1 file, {RATE / 1e6:.0f} MB/s per connection", folder)
            hub.set_rate(RATE / 3)
            rows += _limited(hub, LIMITED_MANY, f"{many} files, {RATE / 3e6:.0f} MB/s per connection", folder)
            hub.set_rate(mebibytes * 1e5)
            rows += _killed(hub, BIG, mebibytes << 20, folder)
        return rows


def write_file(path: Path, size: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.writelines(make_blob(Generated(size, seed)).pieces(0, size))


def _against_hf(hub: HubProcess, repo: str, what: str, folder: Path, rounds: int) -> list[Row]:
    ours: list[Run] = []
    theirs: list[Run] = []
    for number in range(rounds + 1):  # the first of each warms up: the hub's checksums, the page cache
        pair = run_once(pull_command(repo), hub, folder), run_once(hf_command(repo), hub, folder)
        if number:
            ours.append(pair[0])
            theirs.append(pair[1])
    return [
        _row(f"{what}, wall", ours, theirs, "wall", WALL),
        _row(f"{what}, processor", ours, theirs, "cpu", WALL),
        Row(f"{what}, peak memory", max(run.memory for run in ours), "the budget", MEMORY_MB, "MB", 1.0),
    ]  # fmt: skip


def _limited(hub: HubProcess, repo: str, what: str, folder: Path) -> list[Row]:
    ours, theirs = run_once(pull_command(repo), hub, folder), run_once(hf_command(repo), hub, folder)
    return [_row(f"{what}, wall", [ours], [theirs], "wall", LIMITED)]


def _row(what: str, ours: list[Run], theirs: list[Run], field: str, budget: float) -> Row:
    mine, peer = (1000 * statistics.median(getattr(run, field) for run in runs) for runs in (ours, theirs))
    return Row(what, mine, "hf download", peer, budget=budget)


def _killed(hub: HubProcess, repo: str, size: int, folder: Path) -> list[Row]:
    """Kill both at 60 %, run them again, and return the bytes downloaded beyond the size of the repo."""
    beyond: list[float] = []
    for command in (pull_command(repo), hf_command(repo)):
        hub.clear_requests()
        home = folder / "home"
        process = subprocess.Popen(
            command, env=_environment(hub, home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while _sent(hub) < 0.6 * size and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run(command, env=_environment(hub, home), check=True, capture_output=True)
        beyond.append((_sent(hub) - size) / 1e6)
        shutil.rmtree(home)
    budget = TWICE * size / 1e6
    return [
        Row("downloaded twice after a kill at 60 %", beyond[0], "hf download", beyond[1], "MB"),
        Row("downloaded twice after a kill at 60 %", beyond[0], "5 % of the repo", budget, "MB", 1.0),
    ]


def _sent(hub: HubProcess) -> int:
    return sum(request["bytes_sent"] for request in hub.requests() if request["origin"] == "cdn")


def _environment(hub: HubProcess, home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def pull_command(repo: str) -> list[str]:
    return [sys.executable, "-m", "mlxk_tui_headless", "pull", repo, "--json"]


def hf_command(repo: str) -> list[str]:
    return [peers.hf(), "download", repo]


def run_once(command: list[str], hub: HubProcess, folder: Path) -> Run:
    """Run a command with an empty cache.

    Raises:
        SystemExit: the command failed; its messages are shown.
    """
    home = folder / "home"
    with open(folder / "messages", "w+b") as messages:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=_environment(hub, home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
        )
        _, status, used = os.wait4(process.pid, 0)
        taken = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            messages.seek(0)
            sys.stderr.write(messages.read().decode(errors="replace")[-2000:])
            raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    shutil.rmtree(home)
    kilobytes = used.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Run(taken, used.ru_utime + used.ru_stime, kilobytes * 1024 / 1e6)


def main() -> int:
    """Run the benchmark and print its results."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=3)
    parser.add_argument("--mebibytes", type=int, default=1024, help="size of the single file")
    options = parser.parse_args()
    rows = measure(options.rounds, options.mebibytes)
    table("download", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
