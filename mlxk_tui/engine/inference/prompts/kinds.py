"""The kinds of requests that are prepared, and what becomes of each; needs the tokenizer, but no weights."""

from __future__ import annotations

from typing import TypeAlias

from mlxk_tui.engine.inference.prompts.prompting import (
    Prompt,
    PromptModel,
    count,
    detokenize,
    read_prompt,
    read_texts,
    tokenize,
)
from mlxk_tui.engine.protocol import (
    CountTokens,
    Detokenize,
    Detokenized,
    Embed,
    Generate,
    Tokenize,
    Tokenized,
)
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

Preparable: TypeAlias = Generate | CountTokens | Tokenize | Detokenize | Embed
Result: TypeAlias = Prompt | int | Tokenized | Detokenized | list[list[int]] | OpError


def prepared(command: Preparable, model: PromptModel) -> Result:
    """Return what becomes of a request, in whatever process; a prompt without its grammar."""
    try:
        if isinstance(command, CountTokens):
            return count(model, command)
        if isinstance(command, Tokenize):
            return tokenize(model, command)
        if isinstance(command, Detokenize):
            return detokenize(model, command)
        if isinstance(command, Embed):
            return read_texts(model, command.texts)
        return read_prompt(model, command.request)
    except OpError as error:
        return error
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a request's fault must end nothing but the request
        return preparation_fault(error)


def preparation_fault(error: Exception) -> OpError:
    """Return what a client is told of a fault of ours: its type, as its text may hold the prompt."""
    return OpError(
        ErrorType.INTERNAL_ERROR,
        f"The request could not be prepared ({type(error).__name__}).",
        remedy=Remedy.REPORT,
    )
