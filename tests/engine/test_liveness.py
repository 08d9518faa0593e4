"""Hang detection: only a lack of progress of the worker itself counts, not a slow machine or parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlxk_tui.engine.connection.liveness import LivenessLimits, LivenessMonitor, sample_process
from mlxk_tui.engine.protocol import Heartbeat
from tests.support.waiting import wait_until

NOBODY = 2**22 + 1
"""No process has this number (proc(5): pid_max is at most 2**22): nothing is seen from outside."""


def passed(monitor: LivenessMonitor, seconds: float) -> None:
    for _ in range(int(seconds * 4)):
        monitor.advance(0.25, NOBODY)


def busy(step: int, cpu_s: float, **more: object) -> Heartbeat:
    return Heartbeat(step=step, expected_s=0.5, cpu_s=cpu_s, **more)  # type: ignore[arg-type]  # ints and a bool


def test_worker_without_heartbeats_is_unresponsive_and_then_stuck() -> None:
    monitor = LivenessMonitor(LivenessLimits())
    passed(monitor, 4)
    assert monitor.unresponsive
    assert monitor.stuck_reason() is None
    passed(monitor, 7)
    assert monitor.stuck_reason() == "sent no heartbeat for 10 seconds"


def test_idle_worker_with_heartbeats_is_never_stuck() -> None:
    monitor = LivenessMonitor(LivenessLimits())
    for _ in range(100):
        monitor.on_message(Heartbeat(step=3))
        passed(monitor, 2)
        assert monitor.stuck_reason() is None
        assert not monitor.unresponsive


def beating(monitor: LivenessMonitor, seconds: int, beat: Heartbeat) -> str | None:
    """Send heartbeats every second without progress; return the reason."""
    for _ in range(seconds):
        monitor.on_message(beat)
        passed(monitor, 1)
    return monitor.stuck_reason()


def test_step_without_progress_is_stuck_after_ten_times_its_duration() -> None:
    monitor = LivenessMonitor(LivenessLimits())
    assert beating(monitor, 5, busy(1, 3.0)) is None  # not overdue
    assert beating(monitor, 5, busy(1, 3.0)) is None  # overdue, but not for long
    assert beating(monitor, 2, busy(1, 3.0)) == "made no progress for 10 seconds"
    patient = LivenessMonitor(LivenessLimits())
    long = Heartbeat(step=1, expected_s=5.0, cpu_s=3.0)
    assert beating(patient, 49, long) is None  # the expected duration is a tenth of a minute
    assert beating(patient, 3, long) is not None


@pytest.mark.parametrize("sign", ["cpu_s", "disk", "device", "step"])
def test_any_kind_of_progress_prevents_being_stuck(sign: str) -> None:
    monitor = LivenessMonitor(LivenessLimits())
    for at in range(100):
        values = {"step": 1, "cpu_s": 3.0, sign: at}
        monitor.on_message(Heartbeat(expected_s=0.1, **values))  # type: ignore[arg-type]  # one is a float
        passed(monitor, 2)
        assert monitor.stuck_reason() is None


def test_time_for_heartbeats_is_not_progress() -> None:
    monitor = LivenessMonitor(LivenessLimits())
    for at in range(12):
        monitor.on_message(busy(1, 3.0 + at * 1e-4))
        passed(monitor, 1)
    assert monitor.stuck_reason() is not None


def test_gpu_gets_more_time_without_visible_progress() -> None:
    monitor = LivenessMonitor(LivenessLimits())
    monitor.gpu = True
    assert beating(monitor, 59, busy(1, 3.0)) is None
    assert beating(monitor, 3, busy(1, 3.0)) is not None


def test_idle_time_before_a_request_does_not_count() -> None:
    monitor = LivenessMonitor(LivenessLimits())
    passed(monitor, 9)
    monitor.start()
    passed(monitor, 9)
    assert monitor.stuck_reason() is None


_READER = """
import sys
for line in sys.stdin:
    with open(sys.argv[1], "rb", buffering=0) as file:
        file.read(1 << 16)
    print("read", flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of bytes that were read")
def test_bytes_read_are_progress_while_starting_or_loading(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1 << 16))
    process = subprocess.Popen(
        [sys.executable, "-c", _READER, str(tmp_path / "weights")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        starting, loading, generating = (LivenessMonitor(LivenessLimits()) for _ in range(3))
        for _ in range(60):
            process.stdin.write(b"\n")
            assert process.stdout.readline() == b"read\n"
            starting.advance(0.5, process.pid)  # it has not sent anything yet
            loading.on_message(busy(1, 3.0, reads_files=True))
            loading.advance(0.5, process.pid)
            generating.on_message(busy(1, 3.0))
            generating.advance(0.5, process.pid)
        assert starting.stuck_reason() is None
        assert loading.stuck_reason() is None
        stuck = generating.stuck_reason() is not None
        assert stuck or sample_process(process.pid).disk  # the file may be on a real disk
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of threads that wait")
def test_process_is_observed_from_outside() -> None:
    sample = sample_process(os.getpid())
    assert os.getpid() in sample.queued_s
    assert sample.read > 0
    with Path(__file__).open("rb", buffering=0) as file:
        file.read(1000)
    assert sample_process(os.getpid()).read >= sample.read + 1000
    assert sample_process(NOBODY) == sample_process(NOBODY)
    wait_until(lambda: not sample_process(os.getpid()).waits_for_disk)
