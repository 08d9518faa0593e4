"""Lets a child process of ours end with its parent, however that ends and whatever the child is doing.

Such a child leaves by itself when its stdin closes; what cannot is one that is stopped (SIGSTOP, or
Ctrl-Z at a debugger). On Linux the kernel does it then. Other systems know no such thing: there a
stopped child stays until it is continued, and then leaves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def die_with_parent(arguments: Sequence[str]) -> None:
    """Have the kernel kill this process once its parent is gone; where that has happened, leave at once.

    Args:
        arguments: those of the command line; the first one is the parent's process id. Without one nothing
            happens: somebody has started this by hand.
    """
    if not arguments or not arguments[0].isdigit():
        return
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(arguments[0]):  # it ended before that
        os._exit(0)


def leave_with_parent() -> None:
    """Leave as soon as stdin closes, whatever the other threads do; nothing is read from it any more."""
    threading.Thread(target=_await_end, daemon=True).start()


def _await_end() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
