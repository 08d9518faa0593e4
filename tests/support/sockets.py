"""Unread bytes in the sockets of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

from mlxk_tui.demo.hub import LocalHub


def kill_and_count_unread(pid: int, hub: LocalHub) -> int:
    """Kill a process and return the bytes that were sent to it and not read, which are lost.

    The process, a child of this one, is stopped first, so that it reads nothing meanwhile. The hub sends next
    to nothing until its sockets are closed. Returns 0 on systems other than Linux.
    """
    os.kill(pid, signal.SIGSTOP)
    rate, hub.rate_per_connection = hub.rate_per_connection, 1.0
    try:
        unread = _bytes_on_their_way({urlsplit(url).port for url in (hub.url, hub.cdn_url)})
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # somebody else has already waited for it
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    finally:
        hub.rate_per_connection = rate
    return unread


def _bytes_on_their_way(ports: set[int | None]) -> int:
    """Return the unread bytes sent from these local ports; proc(5) documents the columns of net/tcp."""
    count = 0
    for table in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, remote, _, queues, *_ = line.split()
            to_send, to_read = (int(part, 16) for part in queues.split(":"))
            count += to_send if int(local.rpartition(":")[2], 16) in ports else 0
            count += to_read if int(remote.rpartition(":")[2], 16) in ports else 0
    return count
