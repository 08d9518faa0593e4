"""Tells a worker that is stuck from one that is busy: by its heartbeats, and by a look from outside.

A machine may be slow, crowded or swapping, a disk may take its time, a laptop may have slept: none of
that is a fault of the worker's. What is: a process that does not beat although it could, and a piece of
work far beyond what it should take in which nothing moves.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mlxk_tui.engine.protocol import Heartbeat

UNRESPONSIVE_S = 3.0
"""Seconds without a sign of life, or of progress, after which a worker is called unresponsive."""
_LOOK_S = 1.0
"""Seconds of silence after which the process is looked at from outside."""
_CPU_S = 0.005
"""Processor time that counts as progress, in seconds: more than the worker's own keeping of time needs."""
_READ_BYTES = 4096
"""Bytes read that count as progress: more than the few that the parent sends to ask how it is."""
_MOST_WAITING = 0.95
"""Part of the time that may count as waiting for a processor, so that no wait is for ever."""
_GPU_TIMES = 6
"""How much longer a GPU may show nothing: what it does is hard to see."""


@dataclass(frozen=True)
class Patience:
    """When a worker is stuck. Times are those in which the parent ran and the worker could have."""

    silence_s: float = 10.0
    """Seconds without a heartbeat."""
    stall_s: float = 10.0
    """Seconds without progress of processor, disk or device, in a step that is overdue."""
    overdue: float = 10.0
    """How many times its expected length a step may take before that counts."""


@dataclass(frozen=True)
class Look:
    """A process as the system sees it; counters only grow."""

    disk: int = 0
    """Page faults that needed a disk, and bytes read from one."""
    read: int = 0
    """Bytes read, from whatever it was."""
    waits_for_disk: bool = False
    """A thread is in uninterruptible sleep: not even SIGKILL would end it before the disk answers."""
    queued_s: dict[int, float] = field(default_factory=dict)
    """Seconds that each thread was ready to run and got no processor."""


def look_at(pid: int) -> Look:
    """Return how a process of this user stands; an empty look where the system does not tell."""
    if not sys.platform.startswith("linux"):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            faults = int(getattr(process.memory_info(), "pageins", 0))
            return Look(disk=faults, waits_for_disk=process.status() == psutil.STATUS_DISK_SLEEP)
        return Look()
    folder = Path("/proc") / str(pid)
    counted: dict[str, int] = {}
    faults, waits = 0, False
    queued: dict[int, float] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "io").read_text().splitlines():
            name, _, value = line.partition(":")
            counted[name] = int(value)
    with contextlib.suppress(OSError, ValueError, IndexError):
        faults = int(_stat(folder)[9])  # majflt, proc(5)
    with contextlib.suppress(OSError):
        for task in (folder / "task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                waits = waits or _stat(task)[0] == "D"
                queued[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / 1e9
    return Look(faults + counted.get("read_bytes", 0), counted.get("rchar", 0), waits, queued)


def _stat(folder: Path) -> list[str]:
    """Return the fields of a `stat` file that come after the name of the program, the state first."""
    return (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()


class Watch:
    """Watches over one worker while it owes something.

    Args:
        patience: when it counts as stuck; may be changed at any time.
    """

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.gpu = False
        """Whether the worker computes on a GPU."""
        self._silent_s = self._stalled_s = self._step_s = 0.0
        self._beat = Heartbeat(reads_files=True)
        """The last one. Before the first a process reads what it imports, for seconds on a slow machine."""
        self._mark = Heartbeat()
        """The heartbeat with which something moved last."""
        self._look: Look | None = None
        self._moved: Look | None = None
        """The look with which something moved last."""

    @property
    def silent_s(self) -> float:
        """Seconds without a sign of life."""
        return self._silent_s

    @property
    def unresponsive(self) -> bool:
        """Whether nothing has been heard, or nothing has moved in a step that is overdue, for seconds."""
        return self._silent_s > UNRESPONSIVE_S or (self._overdue and self._stalled_s > UNRESPONSIVE_S)

    def start(self) -> None:
        """It owes something from now on: what was before does not count."""
        self._silent_s = self._stalled_s = self._step_s = 0.0
        self._look = self._moved = None

    def hear(self, beat: Heartbeat | None = None) -> None:
        """Take in a heartbeat, or that the worker said something else."""
        self._silent_s = 0.0
        if beat is None:
            return
        mark = self._mark
        if beat.step != mark.step:
            self._step_s = 0.0
        if (
            beat.step != mark.step
            or beat.expected_s == 0
            or beat.cpu_s > mark.cpu_s + _CPU_S
            or beat.disk > mark.disk
            or beat.device > mark.device
        ):
            self._stalled_s = 0.0
            self._mark = beat
        self._beat = beat

    def pass_time(self, seconds: float, pid: int) -> None:
        """Count time in which the parent ran; looks at the process where it does not seem to move."""
        busy = self._beat.expected_s > 0
        if max(self._silent_s, self._stalled_s if busy else 0.0) >= _LOOK_S:
            before, self._look = self._look, look_at(pid)
            if before is None or self._moved is None:
                self._moved = self._look
            elif _disk_moved(self._moved, self._look, self._beat.reads_files):
                self._silent_s = self._stalled_s = 0.0
                self._moved = self._look
                return
            else:
                seconds -= min(_queued_s(before, self._look), _MOST_WAITING * seconds)
        else:
            self._look = self._moved = None
        self._silent_s += seconds
        if busy:
            self._stalled_s += seconds
            self._step_s += seconds

    def verdict(self) -> str | None:
        """Return in what way the worker is stuck, as the end of a sentence; None while it may be busy."""
        if self._silent_s > self.patience.silence_s:
            return f"gave no sign of life for {self.patience.silence_s:g} seconds"
        stall_s = self.patience.stall_s * (_GPU_TIMES if self.gpu else 1)
        if self._overdue and self._stalled_s > stall_s:
            return f"did not get on with its work for {stall_s:g} seconds"
        return None

    @property
    def _overdue(self) -> bool:
        expected = self._beat.expected_s
        return 0 < expected * self.patience.overdue < self._step_s


def _disk_moved(before: Look, now: Look, reads_files: bool) -> bool:
    return (
        now.waits_for_disk or now.disk > before.disk or (reads_files and now.read > before.read + _READ_BYTES)
    )


def _queued_s(before: Look, now: Look) -> float:
    """Return how long the thread that waited longest for a processor did, between two looks."""
    return max((at - before.queued_s.get(task, at) for task, at in now.queued_s.items()), default=0.0)
