"""What SIGINT, SIGTERM and SIGHUP do to a command: they stop the work, never the report of it.

A command prints one object, whole, whenever a signal comes. A signal that arrives while the program starts
is noted; one that arrives while the command works stops it; and as soon as the object is being written,
signals change nothing more, however slowly it is read. This module is imported before all others and
imports next to nothing: only what comes before it cannot be answered.
"""

from __future__ import annotations

import signal
import threading

TYPE_CHECKING = False  # as typing has it; importing that costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop a command."""

_NOTE, _RAISE, _STOPPING, _TAKEN, _HELD = range(5)


class Interrupts:
    """The answer to signals, from the start of a command to the end of its report.

    Attributes:
        abandon: called when a second signal comes before the first has stopped the work, or when the work
            does not stop in time: prints the object and ends the process.
    """

    def __init__(self, abandon: Callable[[], NoReturn] | None = None) -> None:
        self.abandon = abandon
        self._state = _NOTE
        self._noted = 0
        self._repeated = False
        self._take: Callable[[int], None] | None = None
        self._heeded: list[signal.Signals] = []
        self._claim = threading.RLock()

    def install(self) -> None:
        """Take the signals over; one that is ignored (nohup, a shell's background job) stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                self._heeded.append(number)
                signal.signal(number, self._on_signal)

    def uninstall(self) -> None:
        """Give the signals back to Python's defaults."""
        for number in self._heeded:
            python = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if python else signal.SIG_DFL)
        self._heeded.clear()

    def begin(self) -> None:
        """Let a signal stop the work from here on.

        Raises:
            KeyboardInterrupt: one has come already.
        """
        self._state = _RAISE
        self._check()

    def repeat(self) -> None:
        """Let every signal raise KeyboardInterrupt from here on: a conversation goes on after one."""
        self._repeated = True

    def taken_by(self, take: Callable[[int], None]) -> _During:
        """Return a context in which each signal goes to `take`, in the main thread, between two bytecodes.

        Behind it a further signal abandons what still runs; `begin` asks whether one has come.
        """
        return _During(self, _TAKEN, take)

    def noted(self) -> _During:
        """Return a context that no signal breaks off; one that came raises KeyboardInterrupt behind it."""
        return _During(self, _NOTE)

    def hold(self, *, to_be_killed: bool = False) -> None:
        """Begin to report: what comes from here on changes nothing.

        Args:
            to_be_killed: let signals end the process as they do by default; for text that people read.

        May be called again by the thread that called it first. Does not return in another one while that
        reports: it ends the process.
        """
        self._state = _HELD
        if not self._claim.acquire(blocking=False):
            threading.Event().wait()
        if to_be_killed and threading.current_thread() is threading.main_thread():
            for number in self._heeded:
                signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        state = self._state
        if state == _HELD:
            return
        self._noted += 1
        if state == _TAKEN and self._take is not None:
            self._take(number)
        elif state == _RAISE:
            self._check()
        elif self._noted > 1:
            self._leave()

    def _check(self) -> None:
        if self._noted:
            if self._repeated:
                self._noted = 0
            else:
                self._state = _STOPPING
            raise KeyboardInterrupt

    def _leave(self) -> None:
        if self.abandon is not None:
            self.abandon()

    def enter(
        self, state: int, take: Callable[[int], None] | None
    ) -> tuple[int, Callable[[int], None] | None]:
        """Change what a signal does and return what it did; for the contexts."""
        before = self._state, self._take
        self._take = take
        if before[0] not in {_HELD, _STOPPING} or state == _TAKEN:
            self._state = state
        return before

    def leave(self, before: tuple[int, Callable[[int], None] | None], *, check: bool) -> None:
        """Change back; for the contexts."""
        state, self._take = before
        stopped = state == _RAISE and self._noted > 0 and not self._repeated
        self._state = _STOPPING if stopped else state
        if check and state == _RAISE:
            self._check()


class _During:
    """A stretch of the program in which signals are answered in another way."""

    def __init__(self, interrupts: Interrupts, state: int, take: Callable[[int], None] | None = None) -> None:
        self._interrupts = interrupts
        self._state = state
        self._take = take

    def __enter__(self) -> None:
        self._before = self._interrupts.enter(self._state, self._take)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.leave(self._before, check=kind is None and self._state == _NOTE)
