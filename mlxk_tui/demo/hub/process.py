"""The local hub as its own process, which ends with its owner."""

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

_START_WITHIN_S = 30.0
_STOP_WITHIN_S = 5.0
_ANSWER_WITHIN_S = 10.0


class HubProcess:
    """Runs `python -m mlxk_tui.demo.hub` and knows its addresses.

    The process holds the other end of a pipe from this one and ends when that closes, so it does not
    outlive an owner that is killed. Everything here blocks; from a coroutine use a thread.

    Args:
        seed_demo: fill it for the demo.
        folder: serve every folder `org/name` below this one.
        rate: bytes a second that a connection gets.
        port: 0 for a free one.
        listening: a socket of 127.0.0.1 that listens already, in place of a port; it stays the caller's.
        scratch: folder for what is uploaded, in place of the system's temporary one: it goes with that, also
            when the process is killed.
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
        self._passed: list[int] = []
        self._arguments = ["--port", str(port)]
        if listening is not None:
            self._passed = [listening.fileno()]
            self._arguments = ["--socket", str(listening.fileno())]
        if seed_demo:
            self._arguments.append("--seed-demo")
        if folder is not None:
            self._arguments += ["--folder", str(folder)]
        if rate is not None:
            self._arguments += ["--rate", str(rate)]
        self._environ = {} if scratch is None else {"TMPDIR": str(scratch)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's number while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> HubProcess:
        """Start it and return when it listens.

        Raises:
            RuntimeError: it did not come up within half a minute.
        """
        command = [sys.executable, "-m", "mlxk_tui.demo.hub", *self._arguments]
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._passed,
            env={**os.environ, **self._environ},
            stderr=subprocess.DEVNULL,  # the owner may have the screen
            start_new_session=True,  # a Ctrl-C is for the owner, who then ends it
        )
        line = _within(_START_WITHIN_S, self._process.stdout)
        try:
            addresses = json.loads(line)
        except ValueError:
            self.stop()
            raise RuntimeError("The local hub did not start.") from None
        self.url, self.cdn_url = addresses["url"], addresses["cdn_url"]
        return self

    def stop(self) -> None:
        """End it; nothing happens when it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        try:
            process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def add_fault(self, fault: Fault) -> None:
        """Let it have a fault."""
        self._ask("POST", "faults", {**asdict(fault), "headers": dict(fault.headers)})

    def clear_faults(self) -> None:
        """Mend everything."""
        self._ask("DELETE", "faults")

    def faults(self) -> list[dict[str, Any]]:
        """Return the faults with `hits` and what is `left` of each."""
        return list(self._ask("GET", "faults"))

    def requests(self) -> list[dict[str, Any]]:
        """Return the log, the fields of `Request`."""
        return list(self._ask("GET", "requests"))

    def clear_requests(self) -> None:
        """Forget what was."""
        self._ask("DELETE", "requests")

    def set_rate(self, rate: float | None) -> None:
        """Set the bytes a second that a connection gets; None for no limit."""
        self._ask("POST", "rate", {"rate": rate})

    def __enter__(self) -> HubProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ask(self, method: str, what: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/-/{what}", data=data, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_ANSWER_WITHIN_S) as answer:  # noqa: S310 - loopback
            return json.load(answer)


def _within(seconds: float, stream: IO[bytes] | None) -> bytes:
    """Return the stream's next line, or nothing when it takes longer."""
    lines: list[bytes] = []
    reader: Callable[[], bytes] = stream.readline if stream is not None else bytes
    thread = threading.Thread(target=lambda: lines.append(reader()), daemon=True)
    thread.start()
    thread.join(seconds)
    return lines[0] if lines else b""
