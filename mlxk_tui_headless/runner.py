"""Runs a request and reports it: one envelope, as JSON or drawn for people, and an exit status."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NoReturn

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.results import Command, Contract, Envelope, ErrorInfo
from mlxk_tui.ops.core.errors import ERRORS, ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_type, reason_of
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui_headless import output
from mlxk_tui_headless.cli import parse
from mlxk_tui_headless.error_text import error_text
from mlxk_tui_headless.interrupts import Interrupts
from mlxk_tui_headless.options import Globals
from mlxk_tui_headless.request import CommandRequest, UsageError
from mlxk_tui_headless.session import CommandSession


def run(argv: Sequence[str], interrupts: Interrupts | None = None) -> int:
    """Run `mlxk-headless` with these arguments and return its exit status.

    Args:
        argv: the arguments, without the program's name.
        interrupts: what signals do, where they are taken over already.
    """
    options = Globals(json=output.wants_json(argv))
    try:
        request = parse(argv, options)
    except UsageError as error:
        options.json = options.json or "--json" in argv
        return _report_usage(error, options, interrupts or Interrupts())
    if request is None:  # help was printed
        return 0
    return carry_out(request, options, interrupts)


def carry_out(request: CommandRequest, options: Globals, interrupts: Interrupts | None = None) -> int:
    """Run a request, print its envelope and return the exit status; whatever happens, it is reported.

    Args:
        request: what to do.
        options: the global options.
        interrupts: what signals do; without it they are taken over for as long as the request runs.
    """
    if interrupts is not None:
        return _carry_out(request, options, interrupts)
    interrupts = Interrupts()
    interrupts.install()
    try:
        return _carry_out(request, options, interrupts)
    finally:
        interrupts.uninstall()


def _carry_out(request: CommandRequest, options: Globals, interrupts: Interrupts) -> int:
    def abandon() -> NoReturn:
        envelope, status = _failed(request.command, _stopped())
        os._exit(_report(envelope, options, interrupts) or status)

    interrupts.abandon = abandon
    try:
        interrupts.begin()
        with _open_session(request, options, interrupts) as session:
            data = request.execute(session)
        envelope = Envelope(status="success", command=Command(request.command), data=data, error=None)
        status = session.status or request.exit_code(data)
    except OpError as error:
        envelope, status = _failed(request.command, error)
    except KeyboardInterrupt:
        envelope, status = _failed(request.command, _stopped())
    except Exception as error:  # noqa: BLE001 - the border: a fault becomes an envelope, never a traceback
        envelope, status = _failed(request.command, _fault(error))
    return _report(envelope, options, interrupts, request) or status


@contextlib.contextmanager
def _open_session(
    request: CommandRequest, options: Globals, interrupts: Interrupts
) -> Iterator[CommandSession]:
    if options.demo:
        from mlxk_tui.demo.session import DemoSession

        with contextlib.ExitStack() as stack:
            with interrupts.noted():  # it is built in a moment, and a part of it would stay behind
                demo = stack.enter_context(DemoSession())
            yield CommandSession(demo.cache, options, request.command, interrupts)
            with interrupts.noted():
                stack.close()
    elif options.cache_dir is None:
        yield CommandSession(_usual_cache(), options, request.command, interrupts)
    else:
        if not options.cache_dir.strip() or "\0" in options.cache_dir:
            raise OpError(ErrorType.VALIDATION_ERROR, "--cache-dir needs the path of a folder.")
        yield CommandSession(Cache.at(options.cache_dir), options, request.command, interrupts)


def _usual_cache() -> Cache:
    """Return the cache of the environment or, behind it, of the app's config file."""
    from mlxk_tui import settings  # --cache-dir and --demo do without

    loaded = settings.load()
    for problem in loaded.problems:
        output.warn(f"Warning: {problem}")
    return settings.cache_for(loaded, os.environ)


def _fault(error: Exception) -> OpError:
    """Return the typed error for an exception that no operation foresaw."""
    output.debug_traceback(error)
    if isinstance(error, OSError):
        why, kind = reason_of(error), error_type(error)
        if kind is ErrorType.PERMISSION_DENIED:
            return OpError(
                ErrorType.PERMISSION_DENIED,
                f"The file system refused: {why}.",
                remedy=Remedy.CHECK_PERMISSIONS,
            )
        if kind is ErrorType.DISK_FULL:
            return OpError(ErrorType.DISK_FULL, f"The disk is full: {why}.", remedy=Remedy.FREE_SPACE)
    return OpError(
        ErrorType.INTERNAL_ERROR,
        f"A fault of this program ({type(error).__name__}); MLXK_DEBUG=1 prints the traceback.",
        remedy=Remedy.REPORT,
    )


def _stopped() -> OpError:
    return OpError(ErrorType.CANCELLED, "Stopped by the user. The same command can be run again.")


def _failed(command: str, error: OpError) -> tuple[Envelope, int]:
    """Return the envelope of an error and the exit status."""
    envelope = Envelope(
        status="error",
        command=Command(command),
        data=error.data if isinstance(error.data, Contract) else None,
        error=ErrorInfo(
            type=error.type,
            message=error_text(error),
            remedy=error.remedy,
            matches=list(error.matches) or None,
            available_hashes=list(error.available_hashes) or None,
            reason=error.reason,
        ),
    )
    return envelope, ERRORS[error.type].exit_code


def _report(
    envelope: Envelope, options: Globals, interrupts: Interrupts, request: CommandRequest | None = None
) -> int:
    """Print an envelope, the last thing to do; return 0, or the status of output that was not written."""
    # A part of an object, or a second one behind it, would break stdout; text may end anywhere.
    interrupts.hold(to_be_killed=not options.json)
    try:
        if options.json:
            return output.write(output.envelope_json(envelope) + "\n")
        from mlxk_tui_headless.render import human

        return human.show(envelope, None if request is None else request.view)
    except Exception as error:  # noqa: BLE001 - the border: what cannot be shown is a fault like any other
        output.debug_traceback(error)
        argv = ["--json"] if options.json else []
        return output.last_words(argv, "internal_error", "The result could not be shown; please report it.")


def _report_usage(error: UsageError, options: Globals, interrupts: Interrupts) -> int:
    envelope, status = _failed(error.command, OpError(ErrorType.COMMAND_ERROR, error.message))
    if not options.json and error.usage:
        output.warn(error.usage)
    return _report(envelope, options, interrupts) or status
