"""The commands `pull` and `search`.

No `annotations` from `__future__` here, for the reason given in `cli.py`.
"""

import gc
from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless.options import JsonOption, ProgressOption, record_options
from mlxk_tui_headless.request import CommandRequest, UsageError

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui.ops.hub.hub import Hub
    from mlxk_tui_headless.session import CommandSession

NewModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL[@REV]",
        help="Full name, or a name in mlx-community; branch, tag or commit after the @.",
    ),
]
NewModelsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL[@REV]...",
        help="Full names, or names in mlx-community; branch, tag or commit after the @.",
    ),
]
ViaHubOption = Annotated[
    bool,
    typer.Option(
        "--via-hub", help="Download with huggingface_hub (Xet). Interrupted files restart from zero."
    ),
]


def pull(
    ctx: typer.Context,
    models: NewModelsArgument = None,
    *,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", metavar="PATH", help="Read more models from a file, one per line; '-' for stdin."
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", metavar="PATTERN", help="Only files that match; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="PATTERN", help="No files that match; may be repeated."),
    ] = None,
    rate_limit: Annotated[
        float | None,
        typer.Option("--rate-limit", metavar="MB/S", help="Maximum rate in MB/s; 0: no limit."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be downloaded.")] = False,
    via_hub: ViaHubOption = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify cached files and download broken ones again.")
    ] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Download, update or repair models in the cache. Files that are already there are reused."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.pull.patterns import FilePatterns
        from mlxk_tui_headless.pulling import PullCommand, limited, read_specs

        gc.enable()  # off at the start; a long transfer needs it
        command = PullCommand(
            hub=readable_hub(),
            dry_run=dry_run,
            via_hub=via_hub or backend_is_hub(),
            verify=verify,
            patterns=FilePatterns(tuple(include or ()), tuple(exclude or ())),
            options=limited(check_rate_limit(rate_limit)),
        )
        specs = [*(models or ()), *(read_specs(file) if file is not None else ())]
        if len(specs) == 1 and file is None:
            return command.pull_one(session, specs[0])
        return command.pull_all(session, specs)

    record_options(ctx, as_json, progress)
    if not models and file is None:
        raise UsageError("Missing argument 'MODEL[@REV]...', or --file PATH.", usage=ctx.get_usage())
    return CommandRequest("pull", execute)


def readable_hub() -> "Hub":
    """Return the hub that the environment names, for reading.

    Raises:
        OpError: `validation_error` if its address is not valid; `access_denied` if the token is not valid.
    """
    from mlxk_tui.ops.core.errors import OpError
    from mlxk_tui.ops.hub.hub import Hub

    try:
        return Hub.from_environment()
    except OpError as error:
        raise error.as_access_denied() from None


def search(
    ctx: typer.Context,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Words of the name; '' for the most popular.")
    ],
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Maximum number of results, 1 to 200.")
    ] = 20,
    as_json: JsonOption = False,
) -> CommandRequest:
    """Search the hub for models. MLX models are listed first."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.hub import search as operation
        from mlxk_tui.ops.hub.hub import Hub

        hub = Hub.from_environment()
        return session.wait(operation.search(hub, query, limit=limit, cache=session.cache))

    record_options(ctx, as_json)
    return CommandRequest("search", execute)


def check_rate_limit(given: float | None) -> float | None:
    """Return the bytes per second of an option or the setting; None for no limit.

    Raises:
        OpError: `validation_error` if the option is out of range.
    """
    from mlxk_tui import settings
    from mlxk_tui.ops.core.errors import ErrorType, OpError
    from mlxk_tui.transfers.rate_limits import from_megabytes

    if given is not None and not 0 <= given <= 100_000:
        raise OpError(ErrorType.VALIDATION_ERROR, "The rate limit must be from 0 to 100,000 MB/s.")
    return from_megabytes(settings.load().settings.rate_limit if given is None else given)


def backend_is_hub() -> bool:
    """Return whether the settings choose huggingface_hub for all transfers."""
    from mlxk_tui import settings

    return settings.load().settings.transfer_backend == "hub"
