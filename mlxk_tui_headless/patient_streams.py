"""Output that never holds anybody up: what nobody reads is dropped, and counted."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, TextIO

_MOST_BYTES = 1 << 20
"""How much may wait to be read before lines are dropped."""
_LEAVE_S = 1.0
"""How long the end waits for a reader that takes nothing, in seconds."""


def dropped_note(lines: int) -> str:
    """Return the line that stands for lines nobody read in time."""
    return f"... {lines:,} {'line was' if lines == 1 else 'lines were'} dropped: nobody read them in time.\n"


@contextlib.contextmanager
def never_blocking(
    name: Literal["stdout", "stderr"] = "stderr", note: Callable[[int], str] | None = dropped_note
) -> Iterator[None]:
    """Let everything that is written to a stream of `sys` inside go through a thread of its own.

    A pipe that is full then holds up neither the event loop nor a signal. At the end what waits is still
    written, as long as somebody takes it; after a second in which nobody does, the stream leads to nowhere,
    so that the process can end.

    Args:
        name: the stream's.
        note: makes the line that says how many lines were dropped; None says nothing.
    """
    stream: TextIO | None = getattr(sys, name)
    try:
        descriptor = stream.fileno() if stream is not None else None
    except (OSError, ValueError):  # not a real file (a test's buffer): it takes everything
        descriptor = None
    if stream is None or descriptor is None:
        yield
        return
    stream.flush()
    writer = _Writer(descriptor, stream.encoding or "utf-8", stream.isatty(), note)
    setattr(sys, name, writer)
    try:
        yield
    finally:
        setattr(sys, name, stream)
        writer.end()


class _Writer(io.TextIOBase):
    """Takes text at once and writes it in a thread; has no `fileno`, past which nobody may write."""

    def __init__(
        self, descriptor: int, encoding: str, terminal: bool, note: Callable[[int], str] | None
    ) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._terminal = terminal
        self._note = note
        self._waiting: deque[bytes] = deque()
        self._bytes = self._dropped = self._taken = 0
        self._ended = self._gone = self._cut = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a class variable in typeshed, a property in io
        """The encoding of what is written."""
        return self._encoding

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._terminal

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Take text; drops it where too much waits already, and then the rest of its line too."""
        data = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._gone:
                raise BrokenPipeError
            if self._cut or self._bytes + len(data) > _MOST_BYTES:
                self._dropped += text.count("\n")
                self._cut = not text.endswith("\n")
            else:
                self._put_note()
                self._put(data)
        return len(text)

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._bytes += len(data)
        self._changed.notify_all()

    def _put_note(self) -> None:
        """Say how many lines were dropped since the last one that was taken."""
        if self._dropped and self._note is not None:
            whole = not self._waiting or self._waiting[-1].endswith(b"\n")
            note = ("" if whole else "\n") + self._note(self._dropped)
            self._put(note.encode(self._encoding, "backslashreplace"))
        self._dropped = 0

    def end(self) -> None:
        """Write what waits, as long as it is taken, and lead the stream to nowhere if it is not."""
        with self._changed:
            self._put_note()
            self._ended = True
            self._changed.notify_all()
            while not self._gone and self._moves():
                pass
            stuck = not self._gone
        if stuck:
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._descriptor)
                os.close(nowhere)

    def _moves(self) -> bool:
        """Wait until more has been taken, or the last of it; return whether that came to pass."""
        taken = self._taken
        return self._changed.wait_for(lambda: self._gone or taken != self._taken, _LEAVE_S)

    def _work(self) -> None:
        # Not the stream's own `write`: it would keep the stream's lock, which the end of Python needs.
        while True:
            with self._changed:
                while not self._waiting:
                    if self._ended:
                        self._gone = True
                        self._changed.notify_all()
                        return
                    self._changed.wait()
                data = memoryview(self._waiting[0])
            try:
                while data:
                    try:
                        done = os.write(self._descriptor, data[:4096])
                    except BlockingIOError:  # whoever started this made the pipe non-blocking
                        select.select((), (self._descriptor,), ())
                        continue
                    data = data[done:]
                    with self._changed:
                        self._taken += done
                        self._changed.notify_all()
            except OSError:  # closed: what is still to come raises, as it would have without this
                with self._changed:
                    self._gone = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._bytes -= len(self._waiting.popleft())
