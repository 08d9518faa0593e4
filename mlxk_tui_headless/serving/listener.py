"""What commands that listen have in common: one envelope once they listen, signals, and the log on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from mlxk_tui.ops.contract.results import Command, Contract, Envelope
from mlxk_tui_headless import output
from mlxk_tui_headless.background_output import log_to_stderr, write_in_background
from mlxk_tui_headless.cancellation import wake_on_signals

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession


class ListeningCommand(ABC):
    """A command that listens until SIGINT or SIGTERM sets `stop`."""

    def __init__(self, session: CommandSession) -> None:
        self.session = session
        self.stop = asyncio.Event()
        """Set by the first signal."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped_early = False

    @abstractmethod
    async def listen(self) -> None:
        """Start, call `report`, wait for `stop`, and clean up."""

    def on_stop(self) -> None:
        """Handle SIGINT or SIGTERM, in the event loop."""
        self.stop.set()

    def on_hangup(self) -> None:
        """Handle SIGHUP, in the event loop."""
        self.on_stop()

    @property
    def hangup_stops(self) -> bool:
        """Whether a SIGHUP that arrives before the start ends the command."""
        return True

    def run(self, log_level: str) -> None:
        """Run until a signal.

        Args:
            log_level: log level on stderr.

        Raises:
            OpError: the errors of `listen`.
            KeyboardInterrupt: a signal arrived before the start.
        """
        try:
            with (
                write_in_background("stdout", note=None),
                write_in_background(),
                log_to_stderr(log_level),
                self.session.interrupts.handled_by(self._on_signal),
            ):
                asyncio.run(self._run())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    def report(self, command: Command, data: Contract) -> None:
        """Print the envelope."""
        envelope = Envelope(status="success", command=command, data=data, error=None)
        if self.session.options.json:
            output.write(output.envelope_json(envelope) + "\n")
            # The one object is on stdout; everything after it is text on stderr.
            self.session.options.json = False
        else:
            from mlxk_tui_headless.render import human

            human.show(envelope)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopped_early:
            raise asyncio.CancelledError
        with wake_on_signals(self._loop):
            await self.listen()

    def _on_signal(self, number: int) -> None:
        """Pass a signal on; runs in the main thread, between two bytecodes."""
        hangup = number == signal.SIGHUP
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(self.on_hangup if hangup else self.on_stop)
        elif not hangup or self.hangup_stops:
            self._stopped_early = True
