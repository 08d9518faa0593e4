"""How many tokens an answer may have, and whether a model fits into memory."""

from __future__ import annotations

from dataclasses import dataclass

from mlxk_tui.engine.generation import Budget
from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import plural, size
from mlxk_tui.ops.health.machine import Runtime

UNKNOWN_CONTEXT_TOKENS = 4096
"""Context taken for a model whose config.json names none, in tokens.

It bounds only what nobody asked for: a prompt is never refused on a guess.
"""


def token_budget(
    prompt_tokens: int,
    context_length: int | None,
    *,
    max_tokens: int | None = None,
    budget: Budget = "run",
    none_wanted: bool = False,
) -> int:
    """Return how many tokens an answer may have at most; at least one, unless none may be wanted.

    What was asked for, bounded by what the prompt leaves of the context. Where nothing was asked for:
    all that is left for `run`, and for `server` at most half of the context, so that one request
    cannot occupy it for ever. With an unknown context an explicit number is taken as it is, and else
    `UNKNOWN_CONTEXT_TOKENS` less the prompt (at least half of them) for `run`, half of them for `server`.

    Raises:
        OpError: `validation_error` for a `max_tokens` below one; `context_length_exceeded` where the
            prompt leaves no room for an answer.
    """
    if none_wanted and max_tokens == 0:
        if context_length and prompt_tokens > context_length:
            raise too_long(prompt_tokens, context_length)
        return 0
    if max_tokens is not None and max_tokens < 1:
        raise OpError(ErrorType.VALIDATION_ERROR, f"max_tokens is {max_tokens}. It takes 1 or more.")
    if context_length is None or context_length < 1:
        half = UNKNOWN_CONTEXT_TOKENS // 2
        if max_tokens is not None:
            return max_tokens
        return max(half, UNKNOWN_CONTEXT_TOKENS - prompt_tokens) if budget == "run" else half
    left = context_length - prompt_tokens
    if left < 1:
        raise too_long(prompt_tokens, context_length)
    if max_tokens is not None:
        return min(max_tokens, left)
    return left if budget == "run" else min(left, max(1, context_length // 2))


def too_long(prompt_tokens: int, context_length: int, *, at_least: bool = False) -> OpError:
    """Return the error of a prompt that leaves no room for an answer.

    Args:
        prompt_tokens: how many the prompt has.
        context_length: tokens that the model's context holds.
        at_least: the prompt was not counted to its end.
    """
    counted = f"{'at least ' if at_least else ''}{plural(prompt_tokens, 'token')}"
    return OpError(
        ErrorType.CONTEXT_LENGTH_EXCEEDED,
        f"The prompt has {counted} and the model's context holds {context_length:,}, which leaves "
        "none for an answer.",
        remedy=Remedy.SHORTEN_PROMPT,
        overflow=ContextOverflow(prompt_tokens, context_length, at_least),
    )


@dataclass(frozen=True)
class MemoryVerdict:
    """Whether a model fits into the memory that models can use here."""

    fit: MemoryFit | None
    """None where the need or the memory is unknown."""
    needed_bytes: int | None
    usable_bytes: int
    message: str
    """One sentence with the numbers; empty where there is nothing to say."""


def memory_verdict(needed_bytes: int | None, runtime: Runtime, *, name: str = "The model") -> MemoryVerdict:
    """Compare a model's estimated need with this machine, as list and show do."""
    fit = runtime.fit(needed_bytes)
    numbers = f"about {size(needed_bytes)} of memory, and models can use {size(runtime.memory_bytes)} here"
    message = ""
    if fit is MemoryFit.TOO_LARGE:
        message = f"{name} needs {numbers}: it does not fit."
    elif fit is MemoryFit.TIGHT:
        message = f"{name} needs {numbers}: that is tight."
    elif fit is MemoryFit.FITS:
        message = f"{name} needs {numbers}: it fits."
    return MemoryVerdict(fit, needed_bytes, runtime.memory_bytes, message)


def check_memory(
    needed_bytes: int | None, runtime: Runtime, *, name: str = "The model", force: bool = False
) -> MemoryVerdict:
    """Return the verdict, or refuse a model that does not fit.

    Raises:
        OpError: `insufficient_memory`, with the numbers, unless forced.
    """
    verdict = memory_verdict(needed_bytes, runtime, name=name)
    if verdict.fit is MemoryFit.TOO_LARGE and not force:
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            verdict.message,
            remedy=Remedy.CHOOSE_SMALLER_MODEL,
            facts=ErrorFacts(needed_bytes=needed_bytes, available_bytes=runtime.memory_bytes),
        )
    return verdict
