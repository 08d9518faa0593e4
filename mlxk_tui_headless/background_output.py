"""Output of long-running commands: it never blocks the program, and the server's log goes to stderr.

Lines that are not read in time are dropped and counted.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Literal, TextIO

from mlxk_tui_headless import output

_MAX_BUFFERED_BYTES = 1 << 20
"""Size of the buffer; lines beyond it are dropped."""
_CLOSE_TIMEOUT_S = 1.0
"""How long closing waits for a reader that reads nothing, in seconds."""
_log = logging.getLogger("mlxk_tui.server")


def dropped_note(lines: int) -> str:
    """Return the line that replaces dropped lines."""
    return f"... {lines:,} {'line' if lines == 1 else 'lines'} dropped: not read in time.\n"


@contextlib.contextmanager
def write_in_background(
    name: Literal["stdout", "stderr"] = "stderr", note: Callable[[int], str] | None = dropped_note
) -> Iterator[None]:
    """Write everything that goes to `sys.stdout` or `sys.stderr` inside the block in a thread.

    A full pipe then blocks neither the event loop nor a signal. At the end buffered text is still written as
    long as the reader reads; if it reads nothing for a second, the stream is redirected to the null device so
    that the process can end.

    Args:
        name: the stream.
        note: returns the line that reports the number of dropped lines; None reports nothing.
    """
    stream: TextIO | None = getattr(sys, name)
    try:
        descriptor = stream.fileno() if stream is not None else None
    except (OSError, ValueError):  # not a real file (a test's buffer): it never blocks
        descriptor = None
    if stream is None or descriptor is None:
        yield
        return
    stream.flush()
    writer = _BackgroundWriter(descriptor, stream.encoding or "utf-8", stream.isatty(), note)
    setattr(sys, name, writer)
    try:
        yield
    finally:
        setattr(sys, name, stream)
        writer.finish()


class _BackgroundWriter(io.TextIOBase):
    """A stream that buffers text and writes it in a thread; it has no `fileno`, so nothing can bypass it."""

    def __init__(
        self, descriptor: int, encoding: str, terminal: bool, note: Callable[[int], str] | None
    ) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._terminal = terminal
        self._note = note
        self._buffer: deque[bytes] = deque()
        self._bytes = self._dropped = self._written = 0
        self._finishing = self._closed = self._mid_line = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a class variable in typeshed, a property in io
        """The encoding of the stream."""
        return self._encoding

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._terminal

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Buffer text. If the buffer is full, drop it and the rest of its line."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._closed:
                raise BrokenPipeError
            if self._mid_line or self._bytes + len(data) > _MAX_BUFFERED_BYTES:
                self._dropped += text.count("\n")
                self._mid_line = not text.endswith("\n")
            else:
                self._put_note()
                self._put(data)
        return len(text)

    def _put(self, data: bytes) -> None:
        self._buffer.append(data)
        self._bytes += len(data)
        self._changed.notify_all()

    def _put_note(self) -> None:
        """Report the number of lines dropped since the last one that was written."""
        if self._dropped and self._note is not None:
            whole = not self._buffer or self._buffer[-1].endswith(b"\n")
            note = ("" if whole else "\n") + self._note(self._dropped)
            self._put(note.encode(self._encoding, "backslashreplace"))
        self._dropped = 0

    def finish(self) -> None:
        """Write the buffered text; if it is not read, redirect the stream to the null device."""
        with self._changed:
            self._put_note()
            self._finishing = True
            self._changed.notify_all()
            while not self._closed and self._wait_for_progress():
                pass
            stuck = not self._closed
        if stuck:
            with contextlib.suppress(OSError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._descriptor)
                os.close(null)

    def _wait_for_progress(self) -> bool:
        """Wait until more, or everything, has been written; return False after the timeout."""
        written = self._written
        return self._changed.wait_for(lambda: self._closed or written != self._written, _CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        # Not the stream's own `write`: it would hold the stream's lock, which Python needs at exit.
        while True:
            with self._changed:
                while not self._buffer:
                    if self._finishing:
                        self._closed = True
                        self._changed.notify_all()
                        return
                    self._changed.wait()
                data = memoryview(self._buffer[0])
            try:
                while data:
                    try:
                        done = os.write(self._descriptor, data[:4096])
                    except BlockingIOError:  # the parent process made the pipe non-blocking
                        select.select((), (self._descriptor,), ())
                        continue
                    data = data[done:]
                    with self._changed:
                        self._written += done
                        self._changed.notify_all()
            except OSError:  # closed: later writes raise, as on the stream itself
                with self._changed:
                    self._closed = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= len(self._buffer.popleft())


class _StderrHandler(logging.Handler):
    """Writes each record to stderr as a line, with control characters escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        text = f"{time} {record.levelname.lower()} {record.getMessage()}"
        if record.exc_info:
            text += f"\n{logging.Formatter().formatException(record.exc_info)}"
        output.warn(text)


@contextlib.contextmanager
def log_to_stderr(level: str) -> Iterator[None]:
    """Write the server's log to stderr inside the block.

    Args:
        level: the lowest level that is written, as logging names it, in any case.
    """
    handler = _StderrHandler()
    before = _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(level.upper())
    _log.propagate = False
    try:
        yield
    finally:
        _log.level, _log.propagate = before
        _log.removeHandler(handler)
