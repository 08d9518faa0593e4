"""Starts modules of this program as child processes, talks to them and ends them.

A child communicates on its stdin and stdout, exits when its stdin closes, and ends with its parent
however the parent ends (`lifeline.py`). The format of the lines or frames is up to the two sides.
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

Children run in it: `python -m` puts the current folder first on `sys.path`, and a user's folder may
contain an unrelated `json.py`.
"""
_PATH_VARIABLES = (
    *("HF_HOME", "HF_TOKEN_PATH", "HF_XET_CACHE", "XDG_CACHE_HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Variables whose paths may be relative to the folder that the program was started in."""
_CLOSE_S = 1.0
_LINE_BYTES = 1 << 16


def command(module: str) -> tuple[str, ...]:
    """Return the command line that runs a module as a child of this process.

    The module's `main` calls `die_with_parent`. Start it in a thread that lives as long as the child is
    needed: the kernel treats the end of that thread as the end of the parent (prctl(2), PR_SET_PDEATHSIG).
    """
    return (sys.executable, "-m", module, str(os.getpid()))


class ChildProcess:
    """A child process; `start` creates it.

    Attributes:
        stdout: the child's standard output.
        stderr: its standard error; None unless it was requested.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("a child process needs pipes for stdin and stdout")
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
        """Start a module as a child process.

        Args:
            module: one whose `main` calls `die_with_parent`.
            environ: the child's environment; by default that of this process.
            logs: capture its stderr, which is discarded otherwise.
            own_session: shield it from Ctrl-C at the terminal, so that only its parent ends it.
            line_bytes: buffer limit of `stdout`, and the longest line that `readline` returns.

        Raises:
            OSError: the system could not start the process.
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
        """The process id; None once the child is reaped, because the number may be reused."""
        return self._process.pid if self._process.returncode is None else None

    def write(self, data: bytes) -> None:
        """Write bytes to the child's stdin; they are discarded when the child has exited."""
        if not self._stdin.is_closing():
            self._stdin.write(data)

    def send(self, value: Any) -> None:
        """Write a value as one line of JSON; it is discarded when the child has exited."""
        self.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")

    async def drain(self) -> None:
        """Wait until most of the written bytes have been accepted by the child.

        Raises:
            ConnectionError: the child has exited.
        """
        await self._stdin.drain()

    def close_stdin(self) -> None:
        """Close the child's stdin, at which it exits."""
        self._stdin.close()

    def kill(self) -> None:
        """Send SIGKILL; call `wait` afterwards to reap the child."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # Popen.kill may reap it, which asyncio would miss

    async def wait(self, seconds: float | None = None) -> int:
        """Wait for the child to exit, close its pipes and return its exit status (negative: a signal).

        Raises:
            asyncio.TimeoutError: it is still running after `seconds`.
        """
        status = await asyncio.wait_for(self._process.wait(), seconds)
        self._stdin.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):  # unread input is discarded
            await asyncio.wait_for(self._stdin.wait_closed(), _CLOSE_S)
        return status

    async def end(self) -> int:
        """Kill the child, wait for it to exit and return its exit status."""
        self.kill()
        return await self.wait()


def _absolute(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with relative paths made absolute, for a child in another folder."""
    found = dict(environ)
    for name in _PATH_VARIABLES:
        value = found.get(name)
        if value and value[0] not in "/~$":
            found[name] = os.path.abspath(value)
    return found
