"""The local hub in a process that starts with the first connection; its URL is known before."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path

from mlxk_tui.demo.hub.process import HubProcess


class HubOnDemand:
    """Listens at once, and starts a hub with the repos of the demo when a client connects.

    Most demo sessions don't use the hub, and starting it takes about a second. Meanwhile clients wait in the
    backlog of the socket.

    Args:
        rate: maximum bytes per second and connection; None for no limit.
        scratch: folder for uploads; None for the system's temporary folder.
    """

    def __init__(self, *, rate: float | None = None, scratch: Path | None = None) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._process = HubProcess(seed_demo=True, rate=rate, listening=self._socket, scratch=scratch)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._wait, name="demo-hub", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL of the hub, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def pid(self) -> int | None:
        """The process id; None before the start."""
        return self._process.pid

    def close(self) -> None:
        """Stop the process and close the port. Calling it twice is allowed."""
        with contextlib.suppress(OSError):
            self._wake.send(b"x")
        self._thread.join(0.2)
        self._process.stop()  # also while it is starting, which the thread waits for
        self._thread.join()
        for sock in (self._socket, self._wake, self._woken):
            sock.close()

    def _wait(self) -> None:
        ready, _, _ = select.select([self._socket, self._woken], [], [])
        if self._woken not in ready:
            with contextlib.suppress(RuntimeError):  # the client gets no response
                self._process.start()
