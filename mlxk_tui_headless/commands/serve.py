"""The command that serves models to other programs: `server`, also called `serve`.

Annotations are real objects here, for the reason given in `cli.py`.
"""

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlxk_tui_headless.commands import push
from mlxk_tui_headless.options import CpuWeightsOption, JsonOption, note
from mlxk_tui_headless.request import CommandRequest

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession

ALIASES = {"serve": "server"}
"""Other words for commands: the first is the command line's, the second the envelope's."""


class CommandGroup(typer.core.TyperGroup):
    """The commands, which also answer to their aliases; help lists `push` only where it may be used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names that help lists."""
        names = super().list_commands(ctx)
        if "push" in names and not push.is_enabled():
            names.remove("push")
        return names

    def get_command(self, ctx: typer.Context, cmd_name: str) -> typer.core.TyperCommand | None:  # type: ignore[override] # Typer's private Click has other types than Click
        """Return the command of a name or an alias."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))  # type: ignore[return-value] # as above


class LogLevel(str, Enum):
    """Values of `--log-level`."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"


def server(  # noqa: PLR0917 - Typer takes a command's options from its parameters
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="Loaded at once, and taken where a request names none."),
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="The same as MODEL.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="Where to listen; beyond 127.0.0.1 it takes a key."),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", help="0 takes a free one.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", metavar="N", help="Most tokens of an answer where the request does not say."
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", metavar="[NAME:]KEY", help="Ask for this key; may be repeated."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin", metavar="ORIGIN", help="Let web pages of this origin call; may be repeated."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Answer to this host name too; may be repeated."),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option("--alias", metavar="NAME=MODEL", help="Let requests say NAME; may be repeated."),
    ] = None,
    cpu_weights: CpuWeightsOption = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Load models that do not fit, too.")] = False,
    max_queue: Annotated[
        int | None,
        typer.Option("--max-queue", metavar="N", help="Most answers at once, those that wait included."),
    ] = None,
    idle_unload: Annotated[
        float | None,
        typer.Option("--idle-unload", metavar="MINUTES", help="Free an idle model after this; 0 never."),
    ] = None,
    grace: Annotated[
        float,
        typer.Option("--grace", metavar="SECONDS", help="How long answers may go on after Ctrl-C."),
    ] = 30.0,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="What is written to stderr.")
    ] = LogLevel.INFO,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Write prompts to the log too.")] = False,
    as_json: JsonOption = False,
) -> CommandRequest:
    """Serve the cached models over an API like OpenAI's; Ctrl-C ends it."""

    def execute(session: "CommandSession") -> "Contract | None":
        from mlxk_tui_headless import serve

        wanted = serve.ServeOptions(
            model=model_option or model,
            host=host,
            port=port,
            max_tokens=max_tokens,
            api_keys=tuple(api_key or ()),
            origins=tuple(allow_origin or ()),
            hosts=tuple(allow_host or ()),
            aliases=tuple(alias or ()),
            cpu_weights=cpu_weights,
            force=force,
            max_queue=max_queue,
            idle_unload_minutes=idle_unload,
            grace_s=grace,
            log_level=log_level.value,
            log_prompts=log_prompts,
        )
        serve.serve(session, wanted)
        return None  # it has said what there is to say

    note(ctx, as_json)
    return CommandRequest("server", execute)
