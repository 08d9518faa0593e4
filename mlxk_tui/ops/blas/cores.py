"""How many cores this process may use, by its CPU set and control groups, and how many others leave it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
)
"""What the libraries read at their start; what a user has set stays."""

_LOOK_S = 0.5
"""How often it is looked what others use."""
_SHARE = 0.35
"""What others may use of a core that counts as free, in cores."""


def allowed_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy, at least one.

    That is the size of its CPU set (`sched_getaffinity`, which follows cgroup cpusets), or less where
    `cpu.max` (cgroup v2) or `cpu.cfs_quota_us` (v1) of its group, or of one above it, gives it less time.

    Args:
        root: where `proc` and `sys` are.
    """
    on_linux = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    return max(1, min([cores, *(round(quota) for quota in _quotas(root))]))


def thread_variables(environ: dict[str, str] | os._Environ[str]) -> dict[str, str]:
    """Return the variables that keep a library to the allowed cores; none where the user set one."""
    if any(environ.get(name) for name in _THREAD_VARIABLES):
        return {}
    cores = str(allowed_cores())
    return {name: cores for name in _THREAD_VARIABLES if name not in ("GOTO_NUM_THREADS", "OMP_NUM_THREADS")}


def _quotas(root: Path) -> Iterator[float]:
    """Return the quotas of this process's groups and those above, in cores."""
    groups = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            for folder in _upwards(groups, path):
                yield from _ratio(*[*_text(folder / "cpu.max").split(), "", ""][:2])
        elif "cpu" in controllers.split(","):
            for folder in _upwards(groups / "cpu", path):
                yield from _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(base: Path, path: str) -> Iterator[Path]:
    """Return a group's folder and all above it; in a container the path may not be visible, its end is."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:length])


def _ratio(quota: str, period: str) -> Iterator[float]:
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return
    if cores > 0:  # -1: no limit
        yield cores


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


class FreeCores:
    """Keeps a library's threads to the cores that other processes leave free.

    Threads of a BLAS wait for each other many times in a product, spinning. Where another process takes
    one of their cores, each such wait lasts until the scheduler comes round: measured, two threads beside
    one busy process multiply 10 to 30 times slower than one thread alone.

    Args:
        set_threads: tells the library how many threads it may use.
        root: where `proc` is.
    """

    def __init__(self, set_threads: Callable[[int], None], root: Path = Path("/")) -> None:
        self.threads = self._most = allowed_cores(root)
        """How many the library uses now."""
        self._set_threads = set_threads
        self._stat = root / "proc/stat"
        self._looked = time.monotonic()
        self._before = self._times()
        self._calm = 0

    def look(self) -> None:
        """Look at what others use, not too often; fewer threads at once, more after a second look."""
        now = time.monotonic()
        passed = now - self._looked
        if passed < _LOOK_S or self._most == 1:
            return
        self._looked = now
        before, self._before = self._before, self._times()
        others = max(0.0, (self._before[0] - before[0]) - (self._before[1] - before[1])) / passed
        free = max(1, int(self._most - others + _SHARE))
        self._calm = self._calm + 1 if free > self.threads else 0
        if free < self.threads or self._calm >= 2:
            self._calm = 0
            self.threads = free
            self._set_threads(free)

    def _times(self) -> tuple[float, float]:
        """Return how long the allowed cores have been busy, and by this process, in seconds."""
        own = time.process_time()
        cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = 0
        for line in _text(self._stat).splitlines():
            name, *numbers = line.split()
            if name in cores and len(numbers) >= 8:  # user nice system idle iowait irq softirq steal
                ticks += sum(int(number) for at, number in enumerate(numbers[:8]) if at not in (3, 4))
        return ticks / os.sysconf("SC_CLK_TCK"), own
