"""The command line: a Typer app with one function per command, which turns its arguments into a request.

This module does not import `annotations` from `__future__`: Typer would compile each string at every start.
"""

import copy
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlxk_tui.ops.core.blocking import run_without_loop
from mlxk_tui_headless.commands import push, run, serve, share, transfers, update
from mlxk_tui_headless.options import GlobalOptions, JsonOption, ProgressOption, record_options
from mlxk_tui_headless.request import CommandRequest, UsageError, View

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession

PROGRAM = "mlxk-headless"

app = typer.Typer(
    name=PROGRAM,
    cls=serve.CommandGroup,
    help="List, check and manage the MLX models in the Hugging Face cache.",
    add_completion=False,  # installing completion would edit the user's shell files
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Full name, or part of it.")]
RevisionArgument = Annotated[
    str, typer.Argument(metavar="MODEL[@REV]", help="Full name, or part of it; branch, tag or commit.")
]


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    demo: Annotated[bool, typer.Option("--demo", help="Use a built-in sample cache.")] = False,
    cache_dir: Annotated[
        str | None, typer.Option("--cache-dir", metavar="PATH", help="Hub cache folder to use.")
    ] = None,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> CommandRequest | None:
    """List, check and manage the MLX models in the Hugging Face cache."""
    options = ctx.ensure_object(GlobalOptions)
    options.demo, options.cache_dir, options.version = demo, cache_dir, show_version
    record_options(ctx, as_json, progress)
    if ctx.invoked_subcommand is not None:
        options.command = serve.ALIASES.get(ctx.invoked_subcommand, ctx.invoked_subcommand)
        return None
    if show_version:
        return _version_request()
    raise UsageError(f"Missing command. '{PROGRAM} --help' lists all commands.", usage=ctx.get_usage())


@app.command("list")
def list_models(
    ctx: typer.Context,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="PATTERN", help="List only names that contain this; case-insensitive."),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Include every framework and model type.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Include all MLX models; full names.")
    ] = False,
    health: Annotated[bool, typer.Option("--health", help="Show if each is healthy and runs here.")] = False,
    as_json: JsonOption = False,
) -> CommandRequest:
    """List the cached models: MLX chat models only, unless --verbose or --all is given."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.catalog import catalog

        return run_without_loop(catalog.list_models(session.cache, pattern))

    record_options(ctx, as_json)
    return CommandRequest(
        "list", execute, View(pattern=pattern, show_all=show_all, verbose=verbose, health=health)
    )


@app.command()
def show(
    ctx: typer.Context,
    model: RevisionArgument,
    files: Annotated[bool, typer.Option("--files", help="List the files of the snapshot.")] = False,
    config: Annotated[bool, typer.Option("--config", help="Print config.json.")] = False,
    as_json: JsonOption = False,
) -> CommandRequest:
    """Show the details of one model: type, health, and whether it runs here."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.catalog import show as operation

        return run_without_loop(operation.show(session.cache, model, files=files, config=config))

    record_options(ctx, as_json)
    return CommandRequest("show", execute, View(files=files))


@app.command()
def health(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL[@REV]", help="Model to check; default: all.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Verify all checksums: finds bit rot.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if any is unhealthy.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every finding and its fix.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Check whether the cached models are complete and intact."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.catalog import catalog

        with session.progress(quiet=not verify) as on_event:
            checking = catalog.check_health(session.cache, model, verify=verify, on_event=on_event)
            return session.wait(checking) if verify else run_without_loop(checking)

    def status(data: "Contract | None") -> int:
        return 1 if exit_code and getattr(data, "unhealthy", None) else 0

    record_options(ctx, as_json, progress)
    return CommandRequest("health", execute, View(verbose=verbose), status)


@app.command()
def rm(
    ctx: typer.Context,
    model: RevisionArgument,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask; ignore locks.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Remove a model, or one revision of it, from the cache."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui_headless import confirmation

        return confirmation.remove(session, model, force=force)

    record_options(ctx, as_json, progress)
    return CommandRequest("rm", execute)


@app.command()
def prune(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Remove unreferenced revisions, orphaned blobs and stale partial downloads."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui_headless import confirmation

        return confirmation.prune(session, dry_run=dry_run, force=force)

    record_options(ctx, as_json, progress)
    return CommandRequest("prune", execute)


@app.command()
def clone(
    ctx: typer.Context,
    model: RevisionArgument,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Target folder: new or empty.")],
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="REV", help="Branch, tag or commit to copy.")
    ] = None,
    health_check: Annotated[
        bool, typer.Option("--health-check/--no-health-check", help="Refuse an unhealthy model.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Copy a model into a folder; a model that is not cached or not healthy is pulled first."""

    def execute(session: "CommandSession") -> "Contract":
        from pathlib import Path

        from mlxk_tui.ops.clone import clone as operation
        from mlxk_tui.ops.core.errors import ErrorType, OpError

        if not directory.strip() or "\0" in directory:
            raise OpError(
                ErrorType.VALIDATION_ERROR, "The target is not a valid path. Give a folder to copy into."
            )
        with session.progress(quiet=quiet) as on_event:
            return session.wait(
                operation.clone(
                    session.cache,
                    model,
                    Path(os.path.expanduser(directory)),
                    revision=branch,
                    check_health=health_check,
                    hub=transfers.readable_hub(),
                    via_hub=transfers.backend_is_hub(),
                    on_event=on_event,
                )
            )

    record_options(ctx, as_json, progress)
    return CommandRequest("clone", execute, View(quiet=quiet))


app.command()(transfers.pull)
app.command()(update.update)
app.command()(push.push)
app.command()(transfers.search)
app.command()(run.run)
app.command()(serve.server)
app.command()(share.share)
app.command()(share.lock)


@app.command()
def version(ctx: typer.Context, as_json: JsonOption = False) -> CommandRequest:
    """Print the versions of this program, its JSON API and its dependencies."""
    record_options(ctx, as_json)
    return _version_request()


def _version_request() -> CommandRequest:
    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops import about

        return run_without_loop(about.version(session.cache))

    return CommandRequest("version", execute)


def parse(argv: Sequence[str], options: GlobalOptions) -> CommandRequest | None:
    """Parse a command line and return its request, or None when help was printed.

    Args:
        argv: the arguments, without the program's name.
        options: filled with the global options; `json` must already be set if `--json` was given.

    Raises:
        UsageError: the command line is not valid.
    """
    # With --json, stdout is reserved for the object: --help is rejected like any other unknown option.
    extra: dict[str, Any] = {"help_option_names": []} if options.json else {}
    try:
        result = _run(_app_for(argv), argv, options, extra)
    except UsageError as error:
        error.command = options.command
        raise
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # Click's usage errors. Their class depends on Typer's version (0.29 has a private copy of Click),
        # so they are recognized by the method that both classes have.
        format_message: Callable[[], str] | None = getattr(error, "format_message", None)
        if format_message is None:
            raise
        message = _explain(format_message(), getattr(error, "option_name", None), argv, options)
        raise UsageError(message, usage=_usage(error), command=options.command) from None
    if options.version:
        return _version_request()
    if isinstance(result, CommandRequest):
        return result
    if result == 0:  # Typer printed the help and returned the exit status
        return None
    raise KeyboardInterrupt  # Typer returns 130 for a Ctrl-C while parsing


def _app_for(argv: Sequence[str]) -> typer.Typer:
    """Return an app with only the commands that the command line names, or the whole app if there are none.

    Building the options of all commands takes 10 of the 250 ms of a `list`.
    """
    words = {serve.ALIASES.get(word, word) for word in argv}
    named = [info for info in app.registered_commands if _name(info) in words]
    if not named or words & {"--help", "-h"}:
        return app
    smaller = copy.copy(app)
    smaller.registered_commands = named
    return smaller


def _name(command: typer.models.CommandInfo) -> str | None:
    function = command.callback
    return command.name or (typer.main.get_command_name(function.__name__) if function else None)


def _run(program: typer.Typer, argv: Sequence[str], options: GlobalOptions, extra: dict[str, Any]) -> object:
    """Run the command and return its result; on an error, parse again with all commands for the message."""
    try:
        return typer.main.get_command(program).main(
            args=list(argv), prog_name=PROGRAM, standalone_mode=False, obj=options, **extra
        )
    except Exception:
        if program is app:
            raise
        return _run(app, argv, options, extra)


def _explain(message: str, unknown: str | None, argv: Sequence[str], options: GlobalOptions) -> str:
    """Return a usage error's message and the next step; `unknown` is an option that the command lacks."""
    where = PROGRAM if options.command == "cli" else f"{PROGRAM} {options.command}"
    if options.json and any(word in argv for word in ("--help", "-h")):
        return f"Help is not available as JSON: run '{where} --help' without --json."
    if unknown in {"--cache-dir", "--demo", "--version"}:
        return f"{unknown} must come before the command: {PROGRAM} {unknown} … {options.command}"
    message = message.replace("Value error, ", "")  # Typer 0.29 reports an invalid choice this way
    return f"{message.strip().rstrip('.')}. Run '{where} --help' for usage."


def _usage(error: Exception) -> str:
    ctx = getattr(error, "ctx", None)
    return str(ctx.get_usage()) if ctx is not None else ""
