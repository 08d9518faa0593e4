"""The command line: a Typer app, one function a command, each turning its arguments into a Request.

Annotations are real objects here, not strings: Typer would compile each string at every start.
"""

import copy
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlxk_tui.ops.core.blocking import finish
from mlxk_tui_headless.commands import push, run, serve, transfers
from mlxk_tui_headless.options import Globals, JsonOption, ProgressOption, note
from mlxk_tui_headless.request import CommandRequest, UsageError, View

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession

PROGRAM = "mlxk-headless"

app = typer.Typer(
    name=PROGRAM,
    cls=serve.CommandGroup,
    help="See, judge and manage the MLX models in the Hugging Face cache.",
    add_completion=False,  # it would write to the user's shell files
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Full name or a part of it.")]
RevisionArgument = Annotated[
    str, typer.Argument(metavar="MODEL[@REV]", help="Full name, or a part of it; branch, tag or commit.")
]


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    demo: Annotated[bool, typer.Option("--demo", help="Work on a built-in sample cache.")] = False,
    cache_dir: Annotated[
        str | None, typer.Option("--cache-dir", metavar="PATH", help="Use this hub cache folder.")
    ] = None,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> CommandRequest | None:
    """See, judge and manage the MLX models in the Hugging Face cache."""
    options = ctx.ensure_object(Globals)
    options.demo, options.cache_dir, options.version = demo, cache_dir, show_version
    note(ctx, as_json, progress)
    if ctx.invoked_subcommand is not None:
        options.command = serve.ALIASES.get(ctx.invoked_subcommand, ctx.invoked_subcommand)
        return None
    if show_version:
        return _version_request()
    raise UsageError(f"A command is missing. '{PROGRAM} --help' lists them.", usage=ctx.get_usage())


@app.command("list")
def list_models(
    ctx: typer.Context,
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="Only names that hold this, whatever the case.")
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every framework and type.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all MLX, full names.")] = False,
    health: Annotated[bool, typer.Option("--health", help="Show if each is sound and runs here.")] = False,
    as_json: JsonOption = False,
) -> CommandRequest:
    """List the cached models: MLX chat models, unless --verbose or --all."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.catalog import catalog

        return finish(catalog.list_models(session.cache, pattern))

    note(ctx, as_json)
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
    """Show one model: what it is, whether it is sound, whether it runs here."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.catalog import show as operation

        return finish(operation.show(session.cache, model, files=files, config=config))

    note(ctx, as_json)
    return CommandRequest("show", execute, View(files=files))


@app.command()
def health(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL[@REV]", help="Only this model; all when left out.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash every blob: finds bit rot.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if any is unhealthy.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every finding and its fix.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Check whether the cached models are complete and sound."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.catalog import catalog

        with session.progress(quiet=not verify) as on_event:
            judged = catalog.check_health(session.cache, model, verify=verify, on_event=on_event)
            return session.wait(judged) if verify else finish(judged)

    def status(data: "Contract | None") -> int:
        return 1 if exit_code and getattr(data, "unhealthy", None) else 0

    note(ctx, as_json, progress)
    return CommandRequest("health", execute, View(verbose=verbose), status)


@app.command()
def rm(
    ctx: typer.Context,
    model: RevisionArgument,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask; override locks.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Remove a model, or one revision of it, from the cache."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui_headless import confirmation

        return confirmation.remove(session, model, force=force)

    note(ctx, as_json, progress)
    return CommandRequest("rm", execute)


@app.command()
def prune(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Remove detached revisions, orphan blobs and the rest of dead downloads."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui_headless import confirmation

        return confirmation.prune(session, dry_run=dry_run, force=force)

    note(ctx, as_json, progress)
    return CommandRequest("prune", execute)


@app.command()
def clone(
    ctx: typer.Context,
    model: RevisionArgument,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A folder that is new or empty.")],
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="REV", help="Branch, tag or commit to copy.")
    ] = None,
    health_check: Annotated[
        bool, typer.Option("--health-check/--no-health-check", help="Refuse an unsound model.")
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Copy a model into a folder of its own; one that is not cached, or not sound, is pulled first."""

    def execute(session: "CommandSession") -> "Contract":
        from pathlib import Path

        from mlxk_tui.ops.clone import clone as operation
        from mlxk_tui.ops.core.errors import ErrorType, OpError

        if not directory.strip() or "\0" in directory:
            raise OpError(ErrorType.VALIDATION_ERROR, "The target is not a path. Give a folder to copy into.")
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

    note(ctx, as_json, progress)
    return CommandRequest("clone", execute, View(quiet=quiet))


app.command()(transfers.pull)
app.command()(push.push)
app.command()(transfers.search)
app.command()(run.run)
app.command()(serve.server)


@app.command()
def version(ctx: typer.Context, as_json: JsonOption = False) -> CommandRequest:
    """Print the versions of this program, its JSON contract and what it works with."""
    note(ctx, as_json)
    return _version_request()


def _version_request() -> CommandRequest:
    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops import about

        return finish(about.version(session.cache))

    return CommandRequest("version", execute)


def parse(argv: Sequence[str], options: Globals) -> CommandRequest | None:
    """Return what a command line asks for, or None when help was printed.

    Args:
        argv: the arguments, without the program's name.
        options: filled with the global options; `json` must tell whether `--json` was seen.

    Raises:
        UsageError: the command line is not understood.
    """
    # With --json, stdout is for the object: help is refused like any other unknown option.
    extra: dict[str, Any] = {"help_option_names": []} if options.json else {}
    try:
        result = _run(_named(argv), argv, options, extra)
    except UsageError as error:
        error.command = options.command
        raise
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # Click's own usage errors. Where that class lives depends on Typer's version (0.29 carries a
        # private copy of Click), so it is known by the method that both have.
        explain: Callable[[], str] | None = getattr(error, "format_message", None)
        if explain is None:
            raise
        message = _explain(explain(), getattr(error, "option_name", None), argv, options)
        raise UsageError(message, usage=_usage(error), command=options.command) from None
    if options.version:
        return _version_request()
    if isinstance(result, CommandRequest):
        return result
    if result == 0:  # help: Typer printed it and returns the exit status
        return None
    raise KeyboardInterrupt  # Typer returns 130 for a Ctrl-C while parsing


def _named(argv: Sequence[str]) -> typer.Typer:
    """Return the program with those commands alone whose names stand in a command line, if any does.

    To build the options of all of them takes 10 ms of the 250 of a `list`.
    """
    words = {serve.ALIASES.get(word, word) for word in argv}
    named = [info for info in app.registered_commands if _name(info) in words]
    if not named or words & {"--help", "-h"}:
        return app
    few = copy.copy(app)
    few.registered_commands = named
    return few


def _name(command: typer.models.CommandInfo) -> str | None:
    called = command.callback
    return command.name or (typer.main.get_command_name(called.__name__) if called else None)


def _run(program: typer.Typer, argv: Sequence[str], options: Globals, extra: dict[str, Any]) -> object:
    """Return what the called command returns; what is wrong is told by who knows all commands."""
    try:
        return typer.main.get_command(program).main(
            args=list(argv), prog_name=PROGRAM, standalone_mode=False, obj=options, **extra
        )
    except Exception:
        if program is app:
            raise
        return _run(app, argv, options, extra)


def _explain(message: str, unknown: str | None, argv: Sequence[str], options: Globals) -> str:
    """Return a usage error's message with what to do next; `unknown` is the option that a command lacks."""
    where = PROGRAM if options.command == "cli" else f"{PROGRAM} {options.command}"
    if options.json and any(word in argv for word in ("--help", "-h")):
        return f"Help is text for people: run '{where} --help' without --json."
    if unknown in {"--cache-dir", "--demo", "--version"}:
        return f"{unknown} belongs before the command word: {PROGRAM} {unknown} … {options.command}"
    message = message.replace("Value error, ", "")  # how Typer 0.29 reports a word that is no choice
    return f"{message.strip().rstrip('.')}. '{where} --help' shows what it takes."


def _usage(error: Exception) -> str:
    ctx = getattr(error, "ctx", None)
    return str(ctx.get_usage()) if ctx is not None else ""
