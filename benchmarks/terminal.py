"""Runs a full-screen program in a pseudo-terminal and times its output."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

_STYLE = re.compile(rb"\x1b\[[0-9;:?]*[A-Za-z]")


@dataclass(frozen=True)
class Start:
    """Measurements of one start."""

    seconds: dict[str, float]
    """Seconds from the fork until each mark was on the screen."""
    memory: int
    """Resident memory when the last mark appeared, in bytes."""
    libraries: tuple[str, ...]
    """Loaded shared libraries of MLX; empty if the system does not list them."""


def start(
    argv: Sequence[str],
    marks: Mapping[str, str],
    *,
    env: Mapping[str, str] | None = None,
    size: tuple[int, int] = (120, 40),
    timeout: float = 60,
) -> Start:
    """Start a program in a terminal, wait for all marks, and stop it.

    Args:
        argv: the program.
        marks: name -> regular expression that must match the output without styles.
        env: additional environment variables.
        size: columns and lines.
        timeout: seconds to wait for all marks.

    Raises:
        SystemExit: a mark did not appear in time.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
    begin = time.perf_counter()
    process = subprocess.Popen(
        argv, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)
    try:
        seen = _watch(master, marks, begin, timeout)
        running = psutil.Process(process.pid)
        return Start(seen, running.memory_info().rss, _mlx_libraries(running))
    finally:
        _end(process, master)


def _watch(master: int, marks: Mapping[str, str], begin: float, timeout: float) -> dict[str, float]:
    patterns = {name: re.compile(pattern.encode()) for name, pattern in marks.items()}
    seen: dict[str, float] = {}
    text = b""
    while len(seen) < len(patterns):
        left = begin + timeout - time.perf_counter()
        if left <= 0 or not select.select([master], [], [], left)[0]:
            missing = ", ".join(sorted(set(patterns) - set(seen)))
            raise SystemExit(
                f"not seen within {timeout:g} s: {missing}\n{text[-2000:].decode(errors='replace')}"
            )
        text += os.read(master, 1 << 16)
        now = time.perf_counter() - begin
        plain = _STYLE.sub(b"", text)
        for name, pattern in patterns.items():
            if name not in seen and pattern.search(plain):
                seen[name] = now
    return seen


def _mlx_libraries(process: psutil.Process) -> tuple[str, ...]:
    try:
        paths = {mapping.path for mapping in process.memory_maps()}
    except (AttributeError, psutil.Error):  # not supported on macOS
        return ()
    return tuple(sorted(path for path in paths if "/mlx/" in path or "libmlx" in path))


def _end(process: subprocess.Popen[bytes], master: int) -> None:
    """Stop the program, and read its output so that it does not block on a full terminal."""
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 5
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        if select.select([master], [], [], 0.05)[0]:
            try:
                os.read(master, 1 << 16)
            except OSError:  # Linux: the other side is closed
                break
    process.wait()
    os.close(master)
