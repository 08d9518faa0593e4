"""The local hub in a process of its own, which exits with its owner."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mlxk_tui.demo.hub.faults import Fault

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_RESPONSE_TIMEOUT_S = 10.0


class HubProcess:
    """Runs `python -m mlxk_tui.demo.hub`.

    The process exits when its stdin is closed, so it doesn't outlive an owner that is killed. All methods
    block; call them in a thread from a coroutine.

    Args:
        seed_demo: whether to add the repos of the demo.
        folder: add every folder `org/name` in this folder as a repo.
        rate: maximum bytes per second and connection; None for no limit.
        port: port of the hub; 0 for any free port.
        listening: a listening socket of 127.0.0.1 to use instead of a port; the caller closes it.
        scratch: folder for uploads instead of the system's temporary folder, so that they can be removed
            with it even if the process is killed.
    """

    def __init__(
        self,
        *,
        seed_demo: bool = False,
        folder: Path | None = None,
        rate: float | None = None,
        port: int = 0,
        listening: socket.socket | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.url = ""
        self.cdn_url = ""
        self._pass_fds: list[int] = []
        self._arguments = ["--port", str(port)]
        if listening is not None:
            self._pass_fds = [listening.fileno()]
            self._arguments = ["--socket", str(listening.fileno())]
        if seed_demo:
            self._arguments.append("--seed-demo")
        if folder is not None:
            self._arguments += ["--folder", str(folder)]
        if rate is not None:
            self._arguments += ["--rate", str(rate)]
        self._environment = {} if scratch is None else {"TMPDIR": str(scratch)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None if it isn't running."""
        return self._process.pid if self._process is not None else None

    def start(self) -> HubProcess:
        """Start the process and wait until it is listening.

        Raises:
            RuntimeError: it did not start within 30 seconds.
        """
        command = [sys.executable, "-m", "mlxk_tui.demo.hub", *self._arguments]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._pass_fds,
            env={**os.environ, **self._environment},
            stderr=subprocess.DEVNULL,  # the owner may use the terminal for its interface
            start_new_session=True,  # the owner handles Ctrl-C and stops the process
        )
        line = _read_line(self._process.stdout, _START_TIMEOUT_S)
        try:
            addresses = json.loads(line)
        except ValueError:
            self.stop()
            raise RuntimeError("The local hub did not start.") from None
        self.url, self.cdn_url = addresses["url"], addresses["cdn_url"]
        return self

    def stop(self) -> None:
        """Stop the process. Calling it twice is allowed."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def add_fault(self, fault: Fault) -> None:
        """Add a fault; it applies from the next request on."""
        self._control("POST", "faults", {**asdict(fault), "headers": dict(fault.headers)})

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._control("DELETE", "faults")

    def faults(self) -> list[dict[str, Any]]:
        """Return all faults, with the number of requests that each has affected and still affects."""
        return list(self._control("GET", "faults"))

    def requests(self) -> list[dict[str, Any]]:
        """Return the request log, with the fields of `LoggedRequest`."""
        return list(self._control("GET", "requests"))

    def clear_requests(self) -> None:
        """Clear the request log."""
        self._control("DELETE", "requests")

    def set_rate(self, rate: float | None) -> None:
        """Set the maximum bytes per second and connection; None for no limit."""
        self._control("POST", "rate", {"rate": rate})

    def __enter__(self) -> HubProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/-/{path}", data=data, method=method)  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=_RESPONSE_TIMEOUT_S) as response:  # noqa: S310 - loopback
            return json.load(response)


def _read_line(stream: IO[bytes] | None, timeout_s: float) -> bytes:
    """Return the next line of a stream, or `b""` after the timeout."""
    lines: list[bytes] = []
    reader: Callable[[], bytes] = stream.readline if stream is not None else bytes
    thread = threading.Thread(target=lambda: lines.append(reader()), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return lines[0] if lines else b""
