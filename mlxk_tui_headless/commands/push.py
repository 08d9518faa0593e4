"""The experimental command `push`: hidden from help and refused unless it is enabled.

No `annotations` from `__future__` here, for the reason given in `cli.py`.
"""

import gc
import os
from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless import output
from mlxk_tui_headless.options import JsonOption, ProgressOption, record_options
from mlxk_tui_headless.request import CommandRequest, View

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui.settings import Settings
    from mlxk_tui_headless.session import CommandSession

_CANCELLED = "Stopped by the user. Push again to resume: complete files are not sent twice."


def push(  # noqa: PLR0917 - Typer takes a command's options from its parameters
    ctx: typer.Context,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Folder of the model.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repo to push to.")],
    private: Annotated[
        bool, typer.Option("--private", help="Required: only private repos are supported.")
    ] = False,
    create: Annotated[bool, typer.Option("--create", help="Create the repo and branch if missing.")] = False,
    branch: Annotated[str, typer.Option("--branch", metavar="NAME", help="Branch to push to.")] = "main",
    commit: Annotated[
        str, typer.Option("--commit", metavar="TEXT", help="Commit message.")
    ] = "mlx-knife push",
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only check the folder, without network access.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete files that are not in the folder.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the commit's URL; with --json, hub logs on stderr."),
    ] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Push a folder to a private repo on the hub (experimental). Other files of the repo are kept."""

    def execute(session: "CommandSession") -> "Contract":
        settings = _settings()
        _check_enabled(settings)
        from pathlib import Path

        from mlxk_tui.ops.core.errors import ErrorType, OpError
        from mlxk_tui.ops.hub.hub import DEFAULT_ENDPOINT, Hub
        from mlxk_tui.ops.push import push as operation

        if not directory.strip() or "\0" in directory:
            raise OpError(ErrorType.WORKSPACE_NOT_FOUND, "DIR is not a valid path. Give the folder to push.")
        if not private and not check_only:
            raise OpError(
                ErrorType.COMMAND_ERROR,
                "Missing option --private: only pushes to private repos are supported.",
            )
        request = operation.PushRequest(
            Path(os.path.expanduser(directory)),
            repo,
            branch=branch,
            message=commit,
            create=create,
            delete=delete,
            xet=settings.transfer_backend == "hub",
        )
        if check_only:  # needs no token, so an invalid one is ignored
            endpoint = Hub(os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT)
            return session.wait(operation.check_only(request, hub=endpoint))
        hub = Hub.from_environment()
        gc.enable()  # off at the start; a long transfer needs it
        with session.progress() as on_event:
            if dry_run:
                return session.wait(operation.preview_push(request, hub=hub, on_event=on_event))
            on_log = output.warn if verbose and session.options.json else _ignore_log
            try:
                return session.wait(operation.push(request, hub=hub, on_event=on_event, on_log=on_log))
            except KeyboardInterrupt:
                raise OpError(ErrorType.CANCELLED, _CANCELLED) from None

    record_options(ctx, as_json, progress)
    return CommandRequest("push", execute, View(verbose=verbose))


def _settings() -> "Settings":
    from mlxk_tui import settings

    return settings.load().settings


def is_enabled() -> bool:
    """Return whether push is enabled, by the setting or MLXK2_ENABLE_EXPERIMENTAL_PUSH=1."""
    from mlxk_tui.ops.push.request import push_enabled

    return push_enabled(_settings().push, os.environ)


def _check_enabled(settings: "Settings") -> None:
    from mlxk_tui.ops.push.request import push_disabled, push_enabled

    if not push_enabled(settings.push, os.environ):
        raise push_disabled()


def _ignore_log(line: str) -> None:
    """Ignore a line of huggingface_hub's log; the result contains it."""
