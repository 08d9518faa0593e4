"""Entry point: handles `--version` without heavy imports and turns every outcome into an exit status."""

from __future__ import annotations

# Keep these imports few: a signal that arrives before `main` runs cannot be handled.
import gc
import os
import sys

from mlxk_tui_headless.interrupts import Interrupts

TYPE_CHECKING = False  # the same as typing.TYPE_CHECKING; importing typing takes milliseconds
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, TextIO


def main() -> NoReturn:
    """Run `mlxk-headless` with `sys.argv` and exit with its status."""
    interrupts = Interrupts()
    interrupts.install()
    # A command ends before garbage collection pays off (12 of 280 ms for a list of 500 models).
    gc.disable()
    status = _run(sys.argv[1:], interrupts)
    # Everything is written and every handler has run. A normal interpreter shutdown would take 25 ms and
    # wait forever for a worker thread that did not stop in time.
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
    from mlxk_tui_headless import output  # imported after the signal handlers are installed

    def report_stopped() -> int:
        interrupts.start_report(to_be_killed=not output.wants_json(argv))
        return output.report_fatal(argv, "cancelled", "Stopped before the command started.")

    def abandon() -> NoReturn:
        os._exit(report_stopped())

    interrupts.abandon = abandon
    try:
        if list(argv) == ["--version"]:
            from mlxk_tui import __version__  # without importing typer or pydantic

            return output.write(f"mlxk-headless {__version__}\n")
        # Searching for pydantic plugins reads the metadata of every installed package: about 30 ms.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
        from mlxk_tui_headless.runner import run

        return run(argv, interrupts)
    except KeyboardInterrupt:
        return report_stopped()
    except SystemExit as error:
        # Rich and Typer raise it, with code 1, when stdout is a closed pipe.
        return output.EXIT_CLOSED_PIPE if error.code == 1 else 1
    except Exception as error:  # noqa: BLE001 - outermost handler: one JSON object and an exit status, never a traceback
        interrupts.start_report(to_be_killed=not output.wants_json(argv))
        output.debug_traceback(error)
        message = f"The program failed to start ({type(error).__name__}). MLXK_DEBUG=1 prints the traceback."
        return output.report_fatal(argv, "internal_error", message)


if __name__ == "__main__":
    main()
