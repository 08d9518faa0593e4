"""The session of a running command: cache, options, signals, progress and confirmation."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui_headless import output
from mlxk_tui_headless.interrupts import Interrupts

if TYPE_CHECKING:
    from mlxk_tui_headless.options import GlobalOptions

T = TypeVar("T")

_STOP_TIMEOUT_S = 10.0
"""How long an operation may take to stop after a signal, in seconds; it should take one."""


class CommandSession:
    """Everything a command uses while it runs.

    Attributes:
        cache: the cache given by `--demo`, `--cache-dir` or the environment.
        options: the global options.
        interrupts: the process's signal handling.
        status: exit status of a success; not 0 when the reader closed the output.
        interactive: True when the user can be asked: text output, and stdin and stdout are a terminal.
    """

    def __init__(self, cache: Cache, options: GlobalOptions, command: str, interrupts: Interrupts) -> None:
        self.cache = cache
        self.options = options
        self.interrupts = interrupts
        self.command = command
        self.status = 0
        at_terminal = output.is_terminal(sys.stdin) and output.is_terminal(sys.stdout)
        self.interactive = at_terminal and not options.json

    def wait(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run an operation to its end and return its result.

        The first signal cancels the operation, which leaves a state that the same call can resume. After a
        second signal, or ten seconds, the process prints the envelope and ends even if something still runs.

        Raises:
            KeyboardInterrupt: the operation was cancelled.
        """
        import asyncio  # takes a seventh of the time of `list`, which does not need it

        from mlxk_tui_headless.cancellation import CancellableRun

        running = CancellableRun(self.interrupts, _STOP_TIMEOUT_S)
        try:
            with self.interrupts.handled_by(running.on_signal):
                return asyncio.run(running.run(operation))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            running.close()

    @contextlib.contextmanager
    def progress(self, *, quiet: bool = False) -> Iterator[OnEvent]:
        """Return the event handler of an operation: JSON lines, a progress bar at a terminal, or none."""
        if self.options.json_progress:
            from mlxk_tui_headless.background_output import write_in_background
            from mlxk_tui_headless.progress import json_lines

            with write_in_background(note=None):  # a blocked reader must not block the work or a signal
                yield json_lines
        elif quiet or self.options.json or not output.is_terminal(sys.stderr):
            yield ignore_event
        else:
            from mlxk_tui_headless.progress import bar

            with bar() as on_event:
                yield on_event

    def confirm(self, question: str) -> bool:
        """Ask a yes/no question at the terminal; anything but y or yes means no."""
        from mlxk_tui.ops.core.text import printable

        if output.write(f"{printable(question, keep_newlines=True)} [y/N] "):
            return False
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):  # Ctrl-D: the cursor is still on the question's line
            output.write("\n")
        return answer.strip().lower() in {"y", "yes"}
