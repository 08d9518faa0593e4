"""What a command works with: the cache, the options, signals, progress and questions."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.events import OnEvent, ignore
from mlxk_tui_headless import output
from mlxk_tui_headless.interrupts import Interrupts

if TYPE_CHECKING:
    from mlxk_tui_headless.options import Globals

T = TypeVar("T")

_PATIENCE_S = 10.0
"""How long work may take to stop after a signal; operations promise a second."""


class CommandSession:
    """What a command works with while it runs.

    Attributes:
        cache: the cache of `--demo`, `--cache-dir` or the environment.
        options: the global options.
        interrupts: what signals do.
        status: exit status of a success, where it is not 0: whoever read the output has left.
        interactive: True when a person can be asked: text output, stdin and stdout at a terminal.
    """

    def __init__(self, cache: Cache, options: Globals, command: str, interrupts: Interrupts) -> None:
        self.cache = cache
        self.options = options
        self.interrupts = interrupts
        self.command = command
        self.status = 0
        at_terminal = output.is_terminal(sys.stdin) and output.is_terminal(sys.stdout)
        self.interactive = at_terminal and not options.json

    def wait(self, operation: Coroutine[Any, Any, T]) -> T:
        """Run an operation to its end and return its result.

        The first signal cancels it, so that it can leave a state that the same call can finish; a second
        one, or ten seconds, end the process with the envelope though something has not stopped yet.

        Raises:
            KeyboardInterrupt: it was cancelled.
        """
        import asyncio  # a seventh of the time of `list`, which does without

        from mlxk_tui_headless.stopping import Stopping

        stopping = Stopping(self.interrupts, _PATIENCE_S)
        try:
            with self.interrupts.taken_by(stopping.take):
                return asyncio.run(stopping.run(operation))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            stopping.close()

    @contextlib.contextmanager
    def progress(self, *, quiet: bool = False) -> Iterator[OnEvent]:
        """Return where an operation's events go: JSON lines, a bar at a terminal, or nowhere."""
        if self.options.json_progress:
            from mlxk_tui_headless.patient_streams import never_blocking
            from mlxk_tui_headless.progress import json_lines

            with never_blocking(note=None):  # a reader that has stopped must not stop the work, or a signal
                yield json_lines
        elif quiet or self.options.json or not output.is_terminal(sys.stderr):
            yield ignore
        else:
            from mlxk_tui_headless.progress import bar

            with bar() as on_event:
                yield on_event

    def confirm(self, question: str) -> bool:
        """Ask a yes/no question at the terminal; anything but a yes is a no."""
        from mlxk_tui.ops.core.text import printable

        if output.write(f"{printable(question, keep_newlines=True)} [y/N] "):
            return False
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):  # Ctrl-D: the terminal is still on the question's line
            output.write("\n")
        return answer.strip().lower() in {"y", "yes"}
