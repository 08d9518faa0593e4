"""The command `run`: one answer of a model, or a conversation with it.

No `annotations` from `__future__` here, for the reason given in `cli.py`.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from mlxk_tui_headless.options import CpuWeightsOption, JsonOption, ProgressOption, record_options
from mlxk_tui_headless.request import CommandRequest, View

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession


def run(  # noqa: PLR0917 - Typer takes a command's options from its parameters
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL[@REV]", help="Full name, or part of it; branch, tag or commit.")
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="Prompt; '-' reads it from stdin. Without it: a conversation."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="N",
            help="Maximum tokens to generate; default: until the context is full.",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", metavar="T", help="Sampling temperature; 0 is deterministic."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", help="Sample from the top tokens with total probability P."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Sample from the top K tokens; 0: all.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option("--min-p", metavar="P", help="Skip tokens less likely than P times the top token."),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            "--repetition-penalty", metavar="R", help="Above 1: penalize tokens that were used already."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Random seed: repeats the same answer on this machine."),
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Stop before this text; repeatable."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt.")] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream/--no-stream", help="Show the answer while it is generated, or at the end."),
    ] = True,
    chat_template: Annotated[
        bool,
        typer.Option(
            "--chat-template/--no-chat-template", help="Use the model's chat template, or the raw prompt."
        ),
    ] = True,
    hide_reasoning: Annotated[
        bool, typer.Option("--hide-reasoning", help="Hide the model's reasoning.")
    ] = False,
    kv_bits: Annotated[
        int | None,
        typer.Option("--kv-bits", metavar="BITS", help="Quantize the KV cache to 4 or 8 bits: less memory."),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft", metavar="MODEL", help="Draft model for speculative decoding: small, same family."
        ),
    ] = None,
    cpu_weights: CpuWeightsOption = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Run the model even if it does not fit into memory.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show token counts and timings.")] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = None,
) -> CommandRequest:
    """Run a model on a prompt; without a PROMPT, start a conversation."""

    def execute(session: "CommandSession") -> "Contract | None":
        from mlxk_tui.engine.generation import SamplingParams
        from mlxk_tui_headless.chat import run
        from mlxk_tui_headless.chat.run_options import RunOptions

        options = RunOptions(
            model=model,
            prompt=prompt,
            system=system,
            sampling=SamplingParams(
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
        return run.run(session, options)

    record_options(ctx, as_json, progress)
    return CommandRequest("run", execute, View(verbose=verbose, hide_reasoning=hide_reasoning))
