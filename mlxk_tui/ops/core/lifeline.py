"""Makes a child process of this program end with its parent, even if the child is stopped.

A child exits by itself when its stdin closes, unless it is stopped (SIGSTOP, or Ctrl-Z in a debugger).
On Linux the kernel kills it then. Other systems offer no such mechanism: there a stopped child
remains until it is continued, and exits then.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
"""Constant of linux/prctl.h."""


def die_with_parent(arguments: Sequence[str]) -> None:
    """Ask the kernel to kill this process when its parent ends; exit if the parent has already ended.

    Args:
        arguments: the command-line arguments; the first is the parent's process id. Without one nothing
            happens: the module was started by hand.
    """
    if not arguments or not arguments[0].isdigit():
        return
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(arguments[0]):  # the parent ended before prctl took effect
        os._exit(0)


def exit_when_stdin_closes() -> None:
    """Start a thread that exits the process when stdin closes; other input is discarded."""
    threading.Thread(target=_await_end, daemon=True).start()


def _await_end() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
