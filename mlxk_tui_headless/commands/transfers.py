"""The commands that ask the hub and bring models from it: `pull` and `search`.

Annotations are real objects here, for the reason given in `cli.py`.
"""

import gc
from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless.options import JsonOption, ProgressOption, note
from mlxk_tui_headless.request import CommandRequest

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui.ops.hub.hub import Hub
    from mlxk_tui.ops.pull.plan import PullPlan
    from mlxk_tui_headless.session import CommandSession

NewModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[@REV]", help="Full name, or one of mlx-community; branch, tag or commit behind the @."
    ),
]
ViaHubOption = Annotated[
    bool,
    typer.Option(
        "--via-hub", help="Let huggingface_hub move the bytes (Xet). It cannot resume a file that broke off."
    ),
]


def pull(
    ctx: typer.Context,
    model: NewModelArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be fetched.")] = False,
    via_hub: ViaHubOption = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash what is there already; fetch anew what is wrong.")
    ] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Bring a model into the cache: the first time, newer, or whole again. What is there stays."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.contract.transfers import DownloadStatus
        from mlxk_tui.ops.core.errors import ErrorType, OpError
        from mlxk_tui.ops.pull import pull as operation

        gc.enable()  # a long transfer makes garbage; what ends at once does without a collection
        plans: list[PullPlan] = []
        with session.progress() as on_event:
            tally = operation.Tally(on_event)
            try:
                return session.wait(
                    operation.pull(
                        session.cache,
                        model,
                        hub=readable_hub(),
                        dry_run=dry_run,
                        via_hub=via_hub or backend_is_hub(),
                        verify=verify,
                        on_event=tally.on_event,
                        on_plan=plans.append,
                    )
                )
            except KeyboardInterrupt:
                message = "Stopped by the user. The same command goes on where it stopped."
                raise OpError(
                    ErrorType.CANCELLED,
                    message,
                    data=operation.unfinished(
                        model,
                        plans[0] if plans else None,
                        DownloadStatus.CANCELLED,
                        message,
                        downloaded=tally.received,
                    ),
                ) from None

    note(ctx, as_json, progress)
    return CommandRequest("pull", execute)


def readable_hub() -> "Hub":
    """Return the hub of the environment, for reading.

    Raises:
        OpError: `validation_error` for its address; `access_denied` for a token that is none.
    """
    from mlxk_tui.ops.core.errors import OpError
    from mlxk_tui.ops.hub.hub import Hub

    try:
        return Hub.from_environment()
    except OpError as error:
        raise error.as_access_denied() from None


def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words of the name; '' for the best known.")],
    limit: Annotated[int, typer.Option("--limit", metavar="N", help="Most results, 1 to 200.")] = 20,
    as_json: JsonOption = False,
) -> CommandRequest:
    """Look for models on the hub; those made for MLX come first."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.hub import search as operation
        from mlxk_tui.ops.hub.hub import Hub

        hub = Hub.from_environment()
        return session.wait(operation.search(hub, query, limit=limit, cache=session.cache))

    note(ctx, as_json)
    return CommandRequest("search", execute)


def backend_is_hub() -> bool:
    """Tell whether the settings hand every transfer to huggingface_hub."""
    from mlxk_tui import settings

    return settings.load().settings.transfer_backend == "hub"
