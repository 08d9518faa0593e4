"""Runs `mlxk-headless` in tests: as a process, inside this process, or in a pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from mlxk_tui.ops.contract.results import Command, ErrorInfo
from mlxk_tui.ops.contract.schema import BATCH_DATA, COMMAND_DATA, build_schema
from mlxk_tui_headless.runner import run
from tests.support.reference_shape import departures
from tests.support.waiting import PATIENCE_S

PROGRAM = (sys.executable, "-m", "mlxk_tui_headless")
TIMEOUT = PATIENCE_S
"""Seconds after which a process that has not ended is a failure."""

_SCHEMA = jsonschema.Draft202012Validator(build_schema())
_CONTROLLING_TERMINAL = (
    "import fcntl,os,sys,termios; fcntl.ioctl(0,termios.TIOCSCTTY,0); os.execv(sys.executable,sys.argv[1:])"
)
"""Makes the terminal on stdin the controlling one, so that Ctrl-C typed into it arrives as SIGINT."""


class Result(NamedTuple):
    """The result of a run."""

    status: int
    stdout: str
    stderr: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The envelope on stdout, validated."""
        return checked(self.stdout)

    @property
    def data(self) -> dict[str, Any]:
        """`data` of a success."""
        envelope = self.envelope
        assert envelope["status"] == "success", envelope
        assert isinstance(envelope["data"], dict)
        return envelope["data"]

    @property
    def error(self) -> dict[str, Any]:
        """`error` of a failure."""
        envelope = self.envelope
        assert envelope["status"] == "error", envelope
        assert isinstance(envelope["error"], dict)
        return envelope["error"]


def checked(text: str) -> dict[str, Any]:
    """Parse `text` as an envelope and validate it against the schema and the models."""
    assert text.endswith("\n")
    assert text.count("\n") == 1, f"more than one line: {text[:300]!r}"
    assert text.isascii()
    envelope = json.loads(text, parse_constant=_no_constant)
    text.encode().decode("ascii")
    json.dumps(envelope, ensure_ascii=False).encode("utf-8")  # raises on a lone surrogate
    return checked_envelope(envelope)


def _no_constant(name: str) -> object:
    raise AssertionError(f"{name} is not JSON")


def checked_envelope(envelope: dict[str, Any]) -> dict[str, Any]:
    """Validate a parsed envelope against our schema, MLX-Knife's format and the models."""
    problems = [error.message[:500] for error in _SCHEMA.iter_errors(envelope)] + departures(envelope)
    assert not problems, f"{problems}\n{envelope}"
    if envelope["data"] is not None:
        command = Command(envelope["command"])
        batch = command in BATCH_DATA and "models" in envelope["data"]
        model = BATCH_DATA[command] if batch else COMMAND_DATA[command]
        model.model_validate_json(json.dumps(envelope["data"]))
    if envelope["error"] is not None:
        ErrorInfo.model_validate_json(json.dumps(envelope["error"]))
    assert (envelope["status"] == "error") is (envelope["error"] is not None)
    return envelope


def environment(hub: Path, **extra: str) -> dict[str, str]:
    """Return the environment for a process that uses the cache `hub`."""
    return {**os.environ, "HF_HUB_CACHE": str(hub), "PYTHONPATH": os.pathsep.join(sys.path), **extra}


def headless(
    *arguments: str | bytes, hub: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> Result:
    """Run the command as a process, without a terminal."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        input=stdin.encode(),
        capture_output=True,
        env=environment(hub, **(env or {})),
        timeout=TIMEOUT,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def started(
    *arguments: str, hub: Path, program: Sequence[str] = PROGRAM
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command, or another program, during the block."""
    process = subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(hub),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        if process.stdout is not None and not process.stdout.closed:
            process.communicate(timeout=TIMEOUT)


def call(*arguments: str, hub: Path) -> Result:
    """Run the command inside this process, which is faster; captures its output."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        _restored_signals(),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setenv("HF_HUB_CACHE", str(hub))
        patch.setattr(sys, "stdin", io.StringIO())
        status = run(arguments)
    return Result(status, _content(out), _content(err))


def _content(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@contextlib.contextmanager
def _restored_signals() -> Iterator[None]:
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass
class Terminal:
    """A process in a pseudo-terminal."""

    process: subprocess.Popen[bytes]
    master: int
    shown: str = ""

    def wait_for(self, text: str) -> str:
        """Wait until `text` has been shown, and return the whole output."""
        deadline = time.monotonic() + TIMEOUT
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.shown!r}"
            assert self.read(), f"{text!r} never came: {self.shown!r}"
        return self.shown

    def type(self, text: str) -> None:
        """Type text."""
        os.write(self.master, text.encode())

    def finish(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the output with `\\n` line ends."""
        deadline = time.monotonic() + TIMEOUT
        while self.read():
            assert time.monotonic() < deadline, f"it does not end: {self.shown[-200:]!r}"
        return self.process.wait(TIMEOUT), self.shown.replace("\r\n", "\n")

    def read(self) -> bool:
        """Read the next output; return False at the end."""
        ready, _, _ = select.select([self.master], [], [], TIMEOUT)
        assert ready, f"nothing more was shown after {self.shown!r}"
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.shown += data.decode("utf-8", "replace")
        return bool(data)


@contextlib.contextmanager
def at_terminal(
    *arguments: str, hub: Path, columns: int = 100, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run the command with stdin, stdout and stderr in a new pseudo-terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _CONTROLLING_TERMINAL, *PROGRAM, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(hub, TERM="xterm-256color", **(env or {})),
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(TIMEOUT)
        os.close(master)


def shown(result: Result | str) -> Sequence[str]:
    """Return the lines of the human-readable output."""
    return (result if isinstance(result, str) else result.stdout).splitlines()
