"""Dispatches the commands that need a tokenizer but no weights."""

from __future__ import annotations

from typing import TypeAlias

from mlxk_tui.engine.inference.prompts.prompt_builder import (
    Prompt,
    PromptModel,
    build_prompt,
    count_tokens,
    detokenize,
    tokenize,
    tokenize_texts,
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

PreparableCommand: TypeAlias = Generate | CountTokens | Tokenize | Detokenize | Embed
PreparationResult: TypeAlias = Prompt | int | Tokenized | Detokenized | list[list[int]] | OpError


def prepare_request(command: PreparableCommand, model: PromptModel) -> PreparationResult:
    """Prepare a request, in any process. The constraint of a prompt is not included.

    Returns:
        The prompt, number of tokens, tokens, text, or token ids of each text; or the error.
    """
    try:
        if isinstance(command, CountTokens):
            return count_tokens(model, command)
        if isinstance(command, Tokenize):
            return tokenize(model, command)
        if isinstance(command, Detokenize):
            return detokenize(model, command)
        if isinstance(command, Embed):
            return tokenize_texts(model, command.texts)
        return build_prompt(model, command.request)
    except OpError as error:
        return error
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - an error must end only its own request
        return unexpected_error(error)


def unexpected_error(error: Exception) -> OpError:
    """Return the error for an unexpected exception; only its type, as its text may contain the prompt."""
    return OpError(
        ErrorType.INTERNAL_ERROR,
        f"The request could not be prepared ({type(error).__name__}).",
        remedy=Remedy.REPORT,
    )
