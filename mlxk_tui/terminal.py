"""The terminal that the app draws on: what happens when it stops reading, or is gone."""

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

_LOOK_S = 0.25
"""Seconds after which somebody who waits for the terminal looks whether the app is leaving."""
_LAST_WORDS_S = 2.0
"""Seconds that a terminal gets to take what restores it."""


class Output:
    """A stream to a terminal that may be gone: what can no longer be written is dropped.

    Textual's writer (8.2.8) ends with the first error, and whoever has something to write then waits for
    it for ever.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop it."""
        return self._try(lambda: self._stream.write(text)) or 0

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        self._try(self._stream.flush)

    def fileno(self) -> int:
        """The terminal's file descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream.isatty()

    def _try(self, write: Callable[[], int | None]) -> int | None:
        try:
            return write()
        except (OSError, ValueError):  # EIO, or closed
            return None


class TerminalDriver(LinuxDriver):
    """Textual's driver, with an end: no write waits for a terminal that does not read once the app leaves."""

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
        self._leaving = threading.Event()
        self._stuck = False

    def leave(self) -> None:
        """Wait for nothing from now on; may be called in a signal handler."""
        self._leaving.set()

    @property
    def is_gone(self) -> bool:
        """Whether the terminal was closed."""
        poll = select.poll()
        poll.register(self.fileno, 0)
        return any(event & (select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))

    @property
    def is_stuck(self) -> bool:
        """Whether the terminal took too long to read the last words: its writer waits still."""
        return self._stuck

    def write(self, data: str) -> None:
        """Hand text to the writer; wait while it has much to do, but not when the app is leaving."""
        writer = self._writer_thread
        if writer is not None and not self._stuck:
            self._put(writer, data)

    def close(self) -> None:
        """Let the writer finish, unless the terminal does not read."""
        writer = self._writer_thread
        if writer is None:
            return
        self._leaving.set()
        self._put(writer, None)
        writer.join(_LAST_WORDS_S)
        self._stuck = self._stuck or writer.is_alive()

    def _put(self, writer: WriterThread, text: str | None) -> None:
        """Queue text; give up after a while where the app leaves and the terminal does not read."""
        waited = 0.0
        while not self._offer(writer, text):
            waited += _LOOK_S
            if self._leaving.is_set() and waited >= _LAST_WORDS_S:
                self._stuck = True
                return

    @staticmethod
    def _offer(writer: WriterThread, text: str | None) -> bool:
        try:
            writer._queue.put(text, timeout=_LOOK_S)
        except queue.Full:
            return False
        return True
