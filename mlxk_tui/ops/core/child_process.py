"""Modules of this program that run as child processes: started, spoken to, ended and reaped.

A child speaks on its stdin and stdout, leaves by itself when its stdin closes, and goes with its parent
however that ends (`lifeline.py`). What the lines or frames say is between the two sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[3]
"""The folder that holds the package.

`python -m` puts the current folder first on `sys.path`, and a folder that a user works in may hold a
`json.py` of somebody else's. A child that starts here imports nothing of it.
"""
_PATH_VARIABLES = (
    *("HF_HOME", "HF_TOKEN_PATH", "HF_XET_CACHE", "XDG_CACHE_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Paths that a user may give relative to the folder that the program was started in."""
_CLOSE_S = 1.0
_LINE_BYTES = 1 << 16


def command(module: str) -> tuple[str, ...]:
    """Return how a module is run as a child of this process: its `main` calls `die_with_parent`.

    To be started in a thread that lives as long as the child is needed: the kernel takes the end of that
    thread for the end of the parent (prctl(2), PR_SET_PDEATHSIG).
    """
    return (sys.executable, "-m", module, str(os.getpid()))


class ChildProcess:
    """One child; `start` makes it.

    Attributes:
        stdout: what it says.
        stderr: what it logs; None where nobody asked for it.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        self._process = process
        self._stdin = process.stdin
        self.stdout: asyncio.StreamReader = process.stdout
        self.stderr = process.stderr

    @classmethod
    async def start(
        cls,
        module: str,
        *,
        environ: Mapping[str, str] | None = None,
        logs: bool = False,
        own_session: bool = False,
        line_bytes: int = _LINE_BYTES,
    ) -> ChildProcess:
        """Run a module.

        Args:
            module: one whose `main` calls `die_with_parent`.
            environ: its environment; this process's own by default.
            logs: whether to read its stderr, which nobody sees else.
            own_session: keep Ctrl-C at the terminal from it: its parent ends it.
            line_bytes: what `stdout` holds at most until it is read, and the longest line of `readline`.

        Raises:
            OSError: the system gives no process.
        """
        return cls(
            await asyncio.create_subprocess_exec(
                *command(module),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE if logs else asyncio.subprocess.DEVNULL,
                cwd=HOME,
                env=_absolute(os.environ if environ is None else environ),
                start_new_session=own_session,
                limit=line_bytes,
            )
        )

    @property
    def pid(self) -> int | None:
        """Its process id until it is reaped; None from then on, when the number may be another's."""
        return self._process.pid if self._process.returncode is None else None

    def write(self, data: bytes) -> None:
        """Give it bytes; they are lost where it is gone."""
        if not self._stdin.is_closing():
            self._stdin.write(data)

    def send(self, value: Any) -> None:
        """Give it a line of JSON; it is lost where the child is gone."""
        self.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")

    async def drain(self) -> None:
        """Wait until it has taken most of what it was given.

        Raises:
            ConnectionError: it is gone.
        """
        await self._stdin.drain()

    def close_stdin(self) -> None:
        """Let it leave."""
        self._stdin.close()

    def kill(self) -> None:
        """End it at once, whatever it does; it is still to be waited for."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # Popen's own kill may reap it behind asyncio's back

    async def wait(self, seconds: float | None = None) -> int:
        """Wait until it is gone, free its pipes and return the exit status (negative: the signal).

        Raises:
            asyncio.TimeoutError: it is still there after so many seconds.
        """
        status = await asyncio.wait_for(self._process.wait(), seconds)
        self._stdin.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):  # what it did not read any more is lost
            await asyncio.wait_for(self._stdin.wait_closed(), _CLOSE_S)
        return status

    async def end(self) -> int:
        """End it at once, wait until it is gone and return the exit status."""
        self.kill()
        return await self.wait()


def _absolute(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that means the same in another folder."""
    found = dict(environ)
    for name in _PATH_VARIABLES:
        value = found.get(name)
        if value and value[0] not in "/~$":
            found[name] = os.path.abspath(value)
    return found
