"""Runs a request and reports its result: one envelope, as JSON or as text, and an exit status."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import NoReturn

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.results import Command, Contract, Envelope, ErrorInfo
from mlxk_tui.ops.core.errors import ERRORS, ErrorType, OpError
from mlxk_tui.ops.core.os_errors import error_reason, error_type
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui_headless import output
from mlxk_tui_headless.cli import parse
from mlxk_tui_headless.error_text import error_text
from mlxk_tui_headless.interrupts import Interrupts
from mlxk_tui_headless.options import GlobalOptions
from mlxk_tui_headless.request import CommandRequest, UsageError
from mlxk_tui_headless.session import CommandSession


def run(argv: Sequence[str], interrupts: Interrupts | None = None) -> int:
    """Run `mlxk-headless` with these arguments and return its exit status.

    Args:
        argv: the arguments, without the program's name.
        interrupts: the signal handling, if handlers are installed already.
    """
    options = GlobalOptions(json=output.wants_json(argv))
    try:
        request = parse(argv, options)
    except UsageError as error:
        options.json = options.json or "--json" in argv
        return _report_usage(error, options, interrupts or Interrupts())
    if request is None:  # help was printed
        return 0
    return run_request(request, options, interrupts)


def run_request(request: CommandRequest, options: GlobalOptions, interrupts: Interrupts | None = None) -> int:
    """Run a request, print its envelope and return the exit status; every exception is reported.

    Args:
        request: the request.
        options: the global options.
        interrupts: the signal handling; without it, handlers are installed while the request runs.
    """
    if interrupts is not None:
        return _run_request(request, options, interrupts)
    interrupts = Interrupts()
    interrupts.install()
    try:
        return _run_request(request, options, interrupts)
    finally:
        interrupts.uninstall()


def _run_request(request: CommandRequest, options: GlobalOptions, interrupts: Interrupts) -> int:
    def abandon() -> NoReturn:
        envelope, status = _error_envelope(request.command, _cancelled())
        os._exit(_report(envelope, options, interrupts) or status)

    interrupts.abandon = abandon
    try:
        interrupts.raise_on_signal()
        with _open_session(request, options, interrupts) as session:
            data = request.execute(session)
        envelope = Envelope(status="success", command=Command(request.command), data=data, error=None)
        status = session.status or request.exit_code(data)
    except OpError as error:
        envelope, status = _error_envelope(request.command, error)
    except KeyboardInterrupt:
        envelope, status = _error_envelope(request.command, _cancelled())
    except Exception as error:  # noqa: BLE001 - outermost handler: every fault becomes an envelope, never a traceback
        envelope, status = _error_envelope(request.command, _typed_error(error))
    return _report(envelope, options, interrupts, request) or status


@contextlib.contextmanager
def _open_session(
    request: CommandRequest, options: GlobalOptions, interrupts: Interrupts
) -> Iterator[CommandSession]:
    if options.demo:
        from mlxk_tui.demo.session import DemoSession

        with contextlib.ExitStack() as stack:
            with interrupts.deferred():  # interrupted, it would leave files behind
                demo = stack.enter_context(DemoSession())
            yield CommandSession(demo.cache, options, request.command, interrupts)
            with interrupts.deferred():
                stack.close()
    elif options.cache_dir is None:
        yield CommandSession(_default_cache(), options, request.command, interrupts)
    else:
        if not options.cache_dir.strip() or "\0" in options.cache_dir:
            raise OpError(ErrorType.VALIDATION_ERROR, "--cache-dir is not a valid path. Give a folder.")
        yield CommandSession(Cache.at(options.cache_dir), options, request.command, interrupts)


def _default_cache() -> Cache:
    """Return the cache that the environment or else the config file names."""
    from mlxk_tui import settings  # not needed for --cache-dir and --demo

    loaded = settings.load()
    for problem in loaded.problems:
        output.warn(f"Warning: {problem}")
    return settings.cache_for(loaded, os.environ)


def _typed_error(error: Exception) -> OpError:
    """Return the typed error for an unexpected exception."""
    output.debug_traceback(error)
    if isinstance(error, OSError):
        reason, kind = error_reason(error), error_type(error)
        if kind is ErrorType.PERMISSION_DENIED:
            return OpError(
                ErrorType.PERMISSION_DENIED,
                f"Permission denied: {reason}.",
                remedy=Remedy.CHECK_PERMISSIONS,
            )
        if kind is ErrorType.DISK_FULL:
            return OpError(ErrorType.DISK_FULL, f"The disk is full: {reason}.", remedy=Remedy.FREE_SPACE)
    return OpError(
        ErrorType.INTERNAL_ERROR,
        f"Internal error ({type(error).__name__}). MLXK_DEBUG=1 prints the traceback.",
        remedy=Remedy.REPORT,
    )


def _cancelled() -> OpError:
    return OpError(ErrorType.CANCELLED, "Stopped by the user. You can run the same command again.")


def _error_envelope(command: str, error: OpError) -> tuple[Envelope, int]:
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
    envelope: Envelope, options: GlobalOptions, interrupts: Interrupts, request: CommandRequest | None = None
) -> int:
    """Print an envelope; return 0, or the exit status if it could not be written. Called once, at the end."""
    # A partial or second object would make the JSON invalid; text may be cut off anywhere.
    interrupts.start_report(to_be_killed=not options.json)
    try:
        if options.json:
            return output.write(output.envelope_json(envelope) + "\n")
        from mlxk_tui_headless.render import human

        return human.show(envelope, None if request is None else request.view)
    except Exception as error:  # noqa: BLE001 - outermost handler: a result that cannot be shown is an error, too
        output.debug_traceback(error)
        argv = ["--json"] if options.json else []
        return output.report_fatal(
            argv, "internal_error", "The result could not be shown. Please report this."
        )


def _report_usage(error: UsageError, options: GlobalOptions, interrupts: Interrupts) -> int:
    envelope, status = _error_envelope(error.command, OpError(ErrorType.COMMAND_ERROR, error.message))
    if not options.json and error.usage:
        output.warn(error.usage)
    return _report(envelope, options, interrupts) or status
