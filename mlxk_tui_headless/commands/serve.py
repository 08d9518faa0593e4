"""The command `server` (alias `serve`): an HTTP API for other programs.

No `annotations` from `__future__` here, for the reason given in `cli.py`.
"""

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlxk_tui_headless.commands import push
from mlxk_tui_headless.options import CpuWeightsOption, JsonOption, record_options
from mlxk_tui_headless.request import CommandRequest

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession

ALIASES = {"serve": "server"}
"""Aliases of commands; the envelope has the original name."""


class CommandGroup(typer.core.TyperGroup):
    """The commands and their aliases; help lists `push` only if it is enabled."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands that help lists."""
        names = super().list_commands(ctx)
        if "push" in names and not push.is_enabled():
            names.remove("push")
        return names

    def get_command(self, ctx: typer.Context, cmd_name: str) -> typer.core.TyperCommand | None:  # type: ignore[override] # Typer's private Click has other types than Click
        """Return the command with this name or alias."""
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
        typer.Argument(metavar="MODEL", help="Loaded at the start; used if a request names no model."),
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Same as MODEL.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="HOST", help="Address to listen on; others than 127.0.0.1 need an API key."
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", help="Port; 0 picks a free one.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens", metavar="N", help="Maximum tokens of an answer if the request sets none."
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", metavar="[NAME:]KEY", help="Require this API key; repeatable."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin", metavar="ORIGIN", help="Allow web pages of this origin (CORS); repeatable."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Also accept this host name; repeatable."),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option("--alias", metavar="NAME=MODEL", help="Alternative name of a model; repeatable."),
    ] = None,
    cpu_weights: CpuWeightsOption = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Load models even if they do not fit into memory.")
    ] = False,
    max_queue: Annotated[
        int | None,
        typer.Option("--max-queue", metavar="N", help="Maximum requests at once, including waiting ones."),
    ] = None,
    idle_unload: Annotated[
        float | None,
        typer.Option(
            "--idle-unload", metavar="MINUTES", help="Unload an idle model after this time; 0: never."
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", metavar="SECONDS", help="How long running answers may continue after Ctrl-C."
        ),
    ] = 30.0,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="Log level on stderr.")] = LogLevel.INFO,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Include prompts in the log.")] = False,
    as_json: JsonOption = False,
) -> CommandRequest:
    """Serve the cached models over an OpenAI- and Anthropic-compatible API. Ctrl-C stops the server."""

    def execute(session: "CommandSession") -> "Contract | None":
        from mlxk_tui.server.http.keys import parse_keys
        from mlxk_tui.server.options import listed, parse_origins
        from mlxk_tui_headless.serving import serve

        serve.check_numbers({"--max-tokens": max_tokens, "--max-queue": max_queue}, 1, inf)
        serve.check_numbers({"--idle-unload": idle_unload, "--grace": grace}, 0, 1e6)
        given = {
            "host": host,
            "port": port,
            "api_keys": parse_keys(api_key or (), "--api-key"),
            "origins": parse_origins(" ".join(allow_origin or ())),
            "hosts": listed(" ".join(allow_host or ())),
            "model": model_option or model,
            "aliases": serve.parse_aliases(alias or ()),
            "force": force,
            "max_tokens": max_tokens,
            "max_queue": max_queue,
            "log_prompts": log_prompts,
        }
        serve.serve(
            session,
            given,
            cpu_weights=cpu_weights,
            idle_unload_minutes=idle_unload,
            grace_s=grace,
            log_level=log_level.value,
        )
        return None  # the envelope has been printed already

    record_options(ctx, as_json)
    return CommandRequest("server", execute)
