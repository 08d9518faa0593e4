"""Handling of SIGINT, SIGTERM and SIGHUP: they stop the work, but never the report of its result.

A command always prints one complete JSON object, whenever a signal arrives. A signal during startup is
recorded; a signal while the command works stops it; once the object is being written, signals have no effect,
however slowly it is read. This module is imported before all others and imports very little, because a signal
that arrives earlier cannot be handled.
"""

from __future__ import annotations

import signal
import threading

TYPE_CHECKING = False  # the same as typing.TYPE_CHECKING; importing typing takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType
    from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that stop a command."""

_DEFER, _RAISE, _STOPPING, _HANDLED, _REPORTING = range(5)
"""States: signals are only recorded, raise KeyboardInterrupt, have stopped the work, go to a handler, or are
ignored because the result is being printed."""


class Interrupts:
    """Signal handling from the start of a command to the end of its report.

    Attributes:
        abandon: prints the JSON object and ends the process; called when a second signal arrives before the
            first has stopped the work, or when the work does not stop in time.
    """

    def __init__(self, abandon: Callable[[], NoReturn] | None = None) -> None:
        self.abandon = abandon
        self._state = _DEFER
        self._received = 0
        self._keep_raising = False
        self._handler: Callable[[int], None] | None = None
        self._installed: list[signal.Signals] = []
        self._report_lock = threading.RLock()

    def install(self) -> None:
        """Install the handlers. A signal that is ignored (nohup, background jobs) stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}:
                self._installed.append(number)
                signal.signal(number, self._on_signal)

    def uninstall(self) -> None:
        """Restore Python's default handlers."""
        for number in self._installed:
            is_sigint = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_sigint else signal.SIG_DFL)
        self._installed.clear()

    def raise_on_signal(self) -> None:
        """Let a signal raise KeyboardInterrupt from now on.

        Raises:
            KeyboardInterrupt: a signal has already arrived.
        """
        self._state = _RAISE
        self._check()

    def keep_raising(self) -> None:
        """Let every signal raise KeyboardInterrupt, not only the first; for conversations."""
        self._keep_raising = True

    def handled_by(self, handler: Callable[[int], None]) -> _SignalMode:
        """Return a context in which `handler` gets each signal, in the main thread, between two bytecodes.

        After it, another signal abandons whatever still runs; `raise_on_signal` raises if one arrived.
        """
        return _SignalMode(self, _HANDLED, handler)

    def deferred(self) -> _SignalMode:
        """Return a context that signals do not interrupt; at its end a recorded signal is raised."""
        return _SignalMode(self, _DEFER)

    def start_report(self, *, to_be_killed: bool = False) -> None:
        """Start printing the result: signals have no effect from now on.

        The thread that called this first may call it again. In any other thread it does not return, because
        the first thread ends the process.

        Args:
            to_be_killed: let signals end the process as they do by default; for text output.
        """
        self._state = _REPORTING
        if not self._report_lock.acquire(blocking=False):
            threading.Event().wait()
        if to_be_killed and threading.current_thread() is threading.main_thread():
            for number in self._installed:
                signal.signal(number, signal.SIG_DFL)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        state = self._state
        if state == _REPORTING:
            return
        self._received += 1
        if state == _HANDLED and self._handler is not None:
            self._handler(number)
        elif state == _RAISE:
            self._check()
        elif self._received > 1:
            self._abandon()

    def _check(self) -> None:
        if self._received:
            if self._keep_raising:
                self._received = 0
            else:
                self._state = _STOPPING
            raise KeyboardInterrupt

    def _abandon(self) -> None:
        if self.abandon is not None:
            self.abandon()

    def enter(
        self, state: int, handler: Callable[[int], None] | None
    ) -> tuple[int, Callable[[int], None] | None]:
        """Switch to another mode and return the previous one; called by `_SignalMode`."""
        before = self._state, self._handler
        self._handler = handler
        if before[0] not in {_REPORTING, _STOPPING} or state == _HANDLED:
            self._state = state
        return before

    def leave(self, before: tuple[int, Callable[[int], None] | None], *, check: bool) -> None:
        """Switch back to the previous mode; called by `_SignalMode`."""
        state, self._handler = before
        stopped = state == _RAISE and self._received > 0 and not self._keep_raising
        self._state = _STOPPING if stopped else state
        if check and state == _RAISE:
            self._check()


class _SignalMode:
    """A context in which signals are handled differently."""

    def __init__(
        self, interrupts: Interrupts, state: int, handler: Callable[[int], None] | None = None
    ) -> None:
        self._interrupts = interrupts
        self._state = state
        self._handler = handler

    def __enter__(self) -> None:
        self._before = self._interrupts.enter(self._state, self._handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.leave(self._before, check=kind is None and self._state == _DEFER)
