"""Entry point: answers `--version` at once, and turns whatever happens into an exit status."""

from __future__ import annotations

# No more than this: a signal that comes before the first line of main has run cannot be answered.
import gc
import os
import sys

from mlxk_tui_headless.interrupts import Interrupts

TYPE_CHECKING = False  # as typing has it; importing that costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, TextIO


def main() -> NoReturn:
    """Run `mlxk-headless` on the process's arguments and leave with its exit status."""
    interrupts = Interrupts()
    interrupts.install()
    # A command is over before a collection could pay (12 ms of 280 for a list of 500 models).
    gc.disable()
    status = _run(sys.argv[1:], interrupts)
    # Everything is written and every handler has run: taking the interpreter down in good order would
    # cost 25 ms, and wait without end for a worker thread that did not stop in time.
    for stream in (sys.stdout, sys.stderr):
        _flush(stream)
    os._exit(status)


def _flush(stream: TextIO | None) -> None:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return


def _run(argv: Sequence[str], interrupts: Interrupts) -> int:
    from mlxk_tui_headless import output  # nothing may run before the signals are in hand

    def stopped() -> int:
        interrupts.hold(to_be_killed=not output.wants_json(argv))
        return output.last_words(argv, "cancelled", "Stopped before the command began.")

    def abandon() -> NoReturn:
        os._exit(stopped())

    interrupts.abandon = abandon
    try:
        if list(argv) == ["--version"]:
            from mlxk_tui import __version__  # neither typer nor pydantic for this

            return output.write(f"mlxk-headless {__version__}\n")
        # Looking for pydantic plugins means reading every installed package's metadata: about 30 ms.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
        from mlxk_tui_headless.runner import run

        return run(argv, interrupts)
    except KeyboardInterrupt:
        return stopped()
    except SystemExit as leaving:
        # Nobody here raises it: Rich and Typer do, with 1, when the reader of what they print went away.
        return output.EXIT_CLOSED_PIPE if leaving.code == 1 else 1
    except Exception as error:  # noqa: BLE001 - the border: one object and an exit status, never a traceback
        interrupts.hold(to_be_killed=not output.wants_json(argv))
        output.debug_traceback(error)
        message = f"The program failed to start ({type(error).__name__}). MLXK_DEBUG=1 prints the traceback."
        return output.last_words(argv, "internal_error", message)


if __name__ == "__main__":
    main()
