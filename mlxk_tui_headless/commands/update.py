"""The command `update`.

No `annotations` from `__future__` here, for the reason given in `cli.py`.
"""

import gc
from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless.commands import transfers
from mlxk_tui_headless.options import JsonOption, ProgressOption, record_options
from mlxk_tui_headless.request import CommandRequest, UsageError

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession


def update(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL[@REV]",
            help="Cached models: full names, or parts of them; branch or tag after the @.",
        ),
    ] = None,
    update_all: Annotated[bool, typer.Option("--all", help="Update every cached model.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show which updates there are.")] = False,
    rate_limit: Annotated[
        float | None,
        typer.Option("--rate-limit", metavar="MB/S", help="Maximum rate in MB/s; 0: no limit."),
    ] = None,
    via_hub: transfers.ViaHubOption = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Download the newest commit of cached models. Old revisions stay until 'prune' removes them."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.core.errors import ErrorType, OpError
        from mlxk_tui.ops.pull.update import UpdateBatch
        from mlxk_tui_headless.pulling import STOPPED, limited

        gc.enable()  # off at the start; a long transfer needs it
        with session.progress() as on_event:
            batch = UpdateBatch(
                session.cache,
                models or None,
                hub=transfers.readable_hub(),
                dry_run=dry_run,
                via_hub=via_hub or transfers.backend_is_hub(),
                options=limited(transfers.check_rate_limit(rate_limit)),
                on_event=on_event,
            )
            try:
                return session.wait(batch.run())
            except KeyboardInterrupt:
                data = batch.data() if batch.compared else None
                raise OpError(ErrorType.CANCELLED, STOPPED, data=data) from None

    record_options(ctx, as_json, progress)
    if bool(models) is update_all:
        what = (
            "MODEL and --all exclude each other" if update_all else "Missing argument 'MODEL[@REV]', or --all"
        )
        raise UsageError(
            f"{what}. Give the models to update, or --all for every cached model.", usage=ctx.get_usage()
        )
    return CommandRequest("update", execute)
