"""The experimental command `push`, not listed by help and refused unless it was switched on.

Annotations are real objects here, for the reason given in `cli.py`.
"""

import gc
import os
from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless import output
from mlxk_tui_headless.options import JsonOption, ProgressOption, note
from mlxk_tui_headless.request import CommandRequest, View

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui.settings import Settings
    from mlxk_tui_headless.session import CommandSession

_STOPPED = "Stopped by the user. Push again to go on: what arrived whole is not sent twice."


def push(  # noqa: PLR0917 - Typer takes a command's options from its parameters
    ctx: typer.Context,
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder with the model.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repo to push to.")],
    private: Annotated[
        bool, typer.Option("--private", help="Required: a push goes to private repos only.")
    ] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Make repo and branch where they do not exist.")
    ] = False,
    branch: Annotated[str, typer.Option("--branch", metavar="NAME", help="The branch to push to.")] = "main",
    commit: Annotated[
        str, typer.Option("--commit", metavar="TEXT", help="The commit's message.")
    ] = "mlx-knife push",
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only judge the folder, without the network.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what the branch has and the folder lacks.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Show the commit's address; with --json, hub logs on stderr."),
    ] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Push a folder to a private repo of the hub (experimental). What the hub has beyond it stays."""

    def execute(session: "CommandSession") -> "Contract":
        settings = _settings()
        _check_gate(settings)
        from pathlib import Path

        from mlxk_tui.ops.core.errors import ErrorType, OpError
        from mlxk_tui.ops.hub.hub import DEFAULT_ENDPOINT, Hub
        from mlxk_tui.ops.push import push as operation

        if not directory.strip() or "\0" in directory:
            raise OpError(ErrorType.WORKSPACE_NOT_FOUND, "The folder is not a path. Give the one to push.")
        if not private and not check_only:
            raise OpError(
                ErrorType.COMMAND_ERROR,
                "--private is missing: a push goes to private repos only, and has to say so.",
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
        if check_only:  # a token that is no good is no matter then
            address = Hub(os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT)
            return session.wait(operation.check_only(request, hub=address))
        hub = Hub.from_environment()
        gc.enable()  # a long transfer makes garbage; what ends at once does without a collection
        with session.progress() as on_event:
            if dry_run:
                return session.wait(operation.review(request, hub=hub, on_event=on_event))
            on_log = output.warn if verbose and session.options.json else _unseen
            try:
                return session.wait(operation.push(request, hub=hub, on_event=on_event, on_log=on_log))
            except KeyboardInterrupt:
                raise OpError(ErrorType.CANCELLED, _STOPPED) from None

    note(ctx, as_json, progress)
    return CommandRequest("push", execute, View(verbose=verbose))


def _settings() -> "Settings":
    from mlxk_tui import settings

    return settings.load().settings


def is_enabled() -> bool:
    """Tell whether push was switched on, by the setting or MLXK2_ENABLE_EXPERIMENTAL_PUSH=1."""
    from mlxk_tui.ops.push.terms import push_enabled

    return push_enabled(_settings().push, os.environ)


def _check_gate(settings: "Settings") -> None:
    from mlxk_tui.ops.push.terms import push_disabled, push_enabled

    if not push_enabled(settings.push, os.environ):
        raise push_disabled()


def _unseen(line: str) -> None:
    """Take a line of huggingface_hub's log that is told in the result only."""
