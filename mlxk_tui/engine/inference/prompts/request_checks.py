"""Checks of a request that do not depend on the model."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.ops.core.errors import ErrorType, OpError

_MAX_STOPS = 64
_MAX_STOP_CHARACTERS = 4096


def check_request(request: GenerationRequest) -> None:
    """Check that the fields of a request are valid, alone and in combination.

    Raises:
        OpError: `validation_error`.
    """
    given = [value for value in (request.messages, request.prompt, request.tokens) if value is not None]
    if len(given) != 1:
        raise validation_error("Set exactly one of messages, prompt and tokens.")
    if request.messages is not None and not request.messages:
        raise validation_error("There is no message to answer.")
    if request.tokens is not None and not all(_is_integer(token) for token in request.tokens):
        raise validation_error("tokens takes whole numbers.")
    if request.logprobs is not None and not (_is_integer(request.logprobs) and 0 <= request.logprobs <= 20):
        raise validation_error("logprobs takes a whole number from 0 to 20.")
    if request.max_tokens is not None and not _is_integer(request.max_tokens):
        raise validation_error("max_tokens takes a whole number.")
    if request.echo and (request.messages is not None or request.grammar is not None):
        raise validation_error("echo needs a prompt of text or tokens, and no JSON schema. Leave it out.")
    if request.echo and request.logprobs is not None and request.draft_model is not None:
        raise validation_error(
            "Log-probabilities of a prompt cannot be combined with a draft model. Leave one of them out."
        )
    if len(request.stop) > _MAX_STOPS:
        raise validation_error(f"stop takes at most {_MAX_STOPS} stop sequences.")
    stops: Sequence[object] = request.stop
    if not all(isinstance(stop, str) and len(stop) <= _MAX_STOP_CHARACTERS for stop in stops):
        raise validation_error(f"A stop sequence is a text of at most {_MAX_STOP_CHARACTERS:,} characters.")
    if request.grammar is not None and request.draft_model is not None:
        raise validation_error("A JSON schema cannot be combined with a draft model. Leave one of them out.")
    if request.kv_bits is not None and request.kv_bits not in (4, 8):
        raise validation_error("kv_bits takes 4 or 8.")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def validation_error(message: str) -> OpError:
    """Return a `validation_error`."""
    return OpError(ErrorType.VALIDATION_ERROR, message)
