"""Pipes that nobody reads."""

from __future__ import annotations

import contextlib
import os


def fill_stderr_of(pid: int) -> None:
    """Fill the pipe that a process has as its stderr, so that its next write there does not come through.

    For Linux, which lets the other end of a pipe be opened once more.
    """
    pipe = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(pipe, b"\n" * size)
    finally:
        os.close(pipe)
