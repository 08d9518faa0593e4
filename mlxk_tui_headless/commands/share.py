"""The commands `share` and `lock`.

No `annotations` from `__future__` here, for the reason given in `cli.py`.
"""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless.commands.serve import LogLevel
from mlxk_tui_headless.options import JsonOption, ProgressOption, record_options
from mlxk_tui_headless.request import CommandRequest

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession

LOCK_FILE = "models.lock"
"""Default name of the lock file, in the working directory."""


def share(  # noqa: PLR0917 - Typer takes a command's options from its parameters
    ctx: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="NAME", help="Share only this model, even if gated or private; repeatable."
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="HOST", help="Address to listen on; others than 127.0.0.1 need an API key."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Port; 0 picks a free one.")] = 8200,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", metavar="[NAME:]KEY", help="Require this API key; repeatable."),
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option("--api-key-file", metavar="FILE", help="Require one of the API keys in this file."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Also accept this host name; repeatable."),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="Log level on stderr.")] = LogLevel.INFO,
    as_json: JsonOption = False,
) -> CommandRequest:
    """Share the cache with other machines, read-only, as a hub for HF_ENDPOINT. Ctrl-C stops it."""

    def execute(session: "CommandSession") -> "Contract | None":
        from mlxk_tui.server.options import ServerOptions, listed, parse_host, parse_port
        from mlxk_tui_headless.serving import share as runner

        names = runner.exact_names(session, model or ())
        options = ServerOptions(
            host=parse_host(host),
            port=parse_port(port),
            api_keys=runner.find_keys(api_key or (), api_key_file),
            hosts=listed(" ".join(allow_host or ())),
        )
        runner.run_share(session, options, names, log_level.value)
        return None  # the envelope has been printed already

    record_options(ctx, as_json)
    return CommandRequest("share", execute)


def lock(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL[@REV]]...", help="Models to lock; default: all. With --check: the file."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"File to write; default: {LOCK_FILE}."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the cache with a lock file; exit with 1 if it differs.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="With --check: read the large files, too; finds bit rot.")
    ] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Write the commits and checksums of cached models to a lock file, or compare the cache with one."""

    def execute(session: "CommandSession") -> "Contract":
        from mlxk_tui.ops.core.errors import ErrorType, OpError
        from mlxk_tui.ops.share import lock as operation

        given = models or []
        if check and (output is not None or len(given) > 1):
            raise OpError(ErrorType.COMMAND_ERROR, "--check takes one lock file, and no --output.")
        if verify and not check:
            raise OpError(ErrorType.COMMAND_ERROR, "--verify needs --check.")
        path = (given[0] if given else LOCK_FILE) if check else output or LOCK_FILE
        if not path.strip() or "\0" in path:
            raise OpError(ErrorType.VALIDATION_ERROR, "The lock file is not a valid path.")
        file = Path(path).expanduser()
        gc.enable()  # off at the start; hashing takes long
        with session.progress() as on_event:
            if check:
                return session.wait(
                    operation.check_lock(session.cache, file, verify=verify, on_event=on_event)
                )
            return session.wait(operation.lock_models(session.cache, given, file, on_event=on_event))

    def status(data: "Contract | None") -> int:
        return 1 if getattr(data, "differences", None) else 0

    record_options(ctx, as_json, progress)
    return CommandRequest("lock", execute, exit_code=status)
