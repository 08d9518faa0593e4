"""The command that asks a model: `run`, one answer or a conversation.

Annotations are real objects here, for the reason given in `cli.py`.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless.options import CpuWeightsOption, JsonOption, ProgressOption, note
from mlxk_tui_headless.request import CommandRequest, View

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession


def run(  # noqa: PLR0917 - Typer takes a command's options from its parameters
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL[@REV]", help="Full name, or a part of it; branch, tag or commit.")
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="What to ask; '-' reads it from stdin. Left out: a conversation."
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="Most tokens to answer; what the context leaves."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", metavar="T", help="0 always takes the likeliest token.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", metavar="P", help="Draw from the likeliest, P in all.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Draw from the K likeliest tokens; 0 from all.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", metavar="P", help="Leave out tokens less likely than P times the first."),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option("--repetition-penalty", metavar="R", help="Above 1: what was said gets unlikelier."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The same answer every time on this machine.")
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="End before this text; may be repeated."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="The system prompt.")] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream/--no-stream", help="Show the answer while it comes, or when it is whole."),
    ] = True,
    chat_template: Annotated[
        bool,
        typer.Option("--chat-template/--no-chat-template", help="Hand the prompt over as it is written."),
    ] = True,
    hide_reasoning: Annotated[
        bool, typer.Option("--hide-reasoning", help="Do not show what the model thinks.")
    ] = False,
    kv_bits: Annotated[
        int | None,
        typer.Option("--kv-bits", metavar="BITS", help="Keep the context in 4 or 8 bits: less memory."),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option("--draft", metavar="MODEL", help="A small model of the same family that guesses ahead."),
    ] = None,
    cpu_weights: CpuWeightsOption = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Run it though it does not fit into memory.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tokens and timings.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Ask a model; without a PROMPT, have a conversation with it."""

    def execute(session: "CommandSession") -> "Contract | None":
        from mlxk_tui.engine.generation import Sampling
        from mlxk_tui_headless.chat import run
        from mlxk_tui_headless.chat.run_options import RunOptions

        wanted = RunOptions(
            model=model,
            prompt=prompt,
            system=system,
            sampling=Sampling(
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                min_p=min_p,
                repetition_penalty=repetition_penalty,
                seed=seed,
            ),
            max_tokens=max_tokens,
            stop=tuple(stop or ()),
            chat_template=chat_template,
            kv_bits=kv_bits,
            draft=draft,
            cpu_weights=cpu_weights,
            force=force,
            stream=stream,
            show_reasoning=not hide_reasoning,
            verbose=verbose,
        )
        return run.run(session, wanted)

    note(ctx, as_json, progress)
    return CommandRequest("run", execute, View(verbose=verbose, hide_reasoning=hide_reasoning))
