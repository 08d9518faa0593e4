"""What the sockets of this machine hold: bytes that one side has sent and the other has not read."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

from mlxk_tui.demo.hub import LocalHub


def kill_and_count_unread(pid: int, hub: LocalHub) -> int:
    """End a process by SIGKILL and return the bytes on their way to it, which die with its sockets.

    It is stopped first, so that it reads nothing while its sockets are looked at. 0 where the system does not
    tell (other than Linux).
    """
    os.kill(pid, signal.SIGSTOP)
    unread = _bytes_on_their_way({urlsplit(url).port for url in (hub.url, hub.cdn_url)})
    os.kill(pid, signal.SIGKILL)
    return unread


def _bytes_on_their_way(ports: set[int | None]) -> int:
    """Return what was sent from these local ports and not read; proc(5) has the columns of net/tcp."""
    count = 0
    for table in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, remote, _, queues, *_ = line.split()
            to_send, to_read = (int(part, 16) for part in queues.split(":"))
            count += to_send if int(local.rpartition(":")[2], 16) in ports else 0
            count += to_read if int(remote.rpartition(":")[2], 16) in ports else 0
    return count
