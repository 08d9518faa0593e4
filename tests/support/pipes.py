"""Full pipes."""

from __future__ import annotations

import contextlib
import os


def fill_stderr_of(pid: int) -> None:
    """Fill the pipe of a process's stderr, so that its next write blocks.

    Only on Linux, where a pipe can be opened again.
    """
    pipe = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    try:
        for size in (4096, 1):
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(pipe, b"\n" * size)
    finally:
        os.close(pipe)
