"""The local hub as a process that starts with the first connection: its address is known before."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from pathlib import Path

from mlxk_tui.demo.hub.process import HubProcess


class HubOnDemand:
    """Listens at once and starts the hub, seeded for the demo, when somebody connects.

    Most demo sessions ask the hub nothing, and starting it takes about a second. Who connects meanwhile
    waits in the socket's queue.

    Args:
        rate: bytes a second that a connection gets; None for no limit.
        scratch: where it puts what is uploaded; the system's temporary folder without.
    """

    def __init__(self, *, rate: float | None = None, scratch: Path | None = None) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._process = HubProcess(seed_demo=True, rate=rate, listening=self._socket, scratch=scratch)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._wait, name="demo-hub", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def pid(self) -> int | None:
        """The process's number once it runs."""
        return self._process.pid

    def close(self) -> None:
        """End the process and give the port back; a second call does nothing."""
        with contextlib.suppress(OSError):
            self._wake.send(b"x")
        self._thread.join(0.2)
        self._process.stop()  # also one that is coming up, which the thread waits for
        self._thread.join()
        for each in (self._socket, self._wake, self._woken):
            each.close()

    def _wait(self) -> None:
        ready, _, _ = select.select([self._socket, self._woken], [], [])
        if self._woken not in ready:
            with contextlib.suppress(RuntimeError):  # who asked finds that the hub does not answer
                self._process.start()
