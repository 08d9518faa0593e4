"""Textual driver for terminals that stop reading or are closed."""

from __future__ import annotations

import queue
import select
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from textual.app import App
from textual.drivers._writer_thread import WriterThread
from textual.drivers.linux_driver import LinuxDriver

_POLL_S = 0.25
"""Interval at which a blocked write checks whether the app is exiting, in seconds."""
_EXIT_TIMEOUT_S = 2.0
"""How long the terminal may take to read the sequences that restore it, in seconds."""


class Output:
    """A stream to a terminal that may be closed; text that cannot be written is dropped.

    Textual's writer thread (8.2.8) ends at the first error, and later writes then wait forever.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        return self._try(lambda: self._stream.write(text)) or 0

    def flush(self) -> None:
        """Write buffered text, or drop it."""
        self._try(self._stream.flush)

    def fileno(self) -> int:
        """The terminal's file descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def _try(self, write: Callable[[], int | None]) -> int | None:
        try:
            return write()
        except (OSError, ValueError):  # EIO, or closed
            return None


class TerminalDriver(LinuxDriver):
    """Textual's driver, but while the app exits no write waits for a terminal that does not read."""

    def __init__(
        self,
        app: App[Any],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        if sys.__stderr__ is not None:
            self._file: Any = Output(sys.__stderr__)
        self._exiting = threading.Event()
        self._stuck = False

    def leave(self) -> None:
        """Stop waiting for the terminal; may be called in a signal handler."""
        self._exiting.set()

    @property
    def is_gone(self) -> bool:
        """Whether the terminal was closed."""
        poll = select.poll()
        poll.register(self.fileno, 0)
        return any(event & (select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))

    @property
    def is_stuck(self) -> bool:
        """Whether the terminal did not read in time at exit, so that the writer thread is still blocked."""
        return self._stuck

    def write(self, data: str) -> None:
        """Queue text for the writer thread; wait while the queue is full, but not while the app exits."""
        writer = self._writer_thread
        if writer is not None and not self._stuck:
            self._put(writer, data)

    def close(self) -> None:
        """Wait for the writer thread, unless the terminal does not read."""
        writer = self._writer_thread
        if writer is None:
            return
        self._exiting.set()
        self._put(writer, None)
        writer.join(_EXIT_TIMEOUT_S)
        self._stuck = self._stuck or writer.is_alive()

    def _put(self, writer: WriterThread, text: str | None) -> None:
        """Queue text; while the app exits, give up after a timeout."""
        waited = 0.0
        while not self._offer(writer, text):
            waited += _POLL_S
            if self._exiting.is_set() and waited >= _EXIT_TIMEOUT_S:
                self._stuck = True
                return

    @staticmethod
    def _offer(writer: WriterThread, text: str | None) -> bool:
        try:
            writer._queue.put(text, timeout=_POLL_S)
        except queue.Full:
            return False
        return True
