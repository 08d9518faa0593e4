"""What a request must be like whatever the model."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.engine.generation import Generation
from mlxk_tui.ops.core.errors import ErrorType, OpError

_MAX_STOPS = 64
_MAX_STOP_CHARACTERS = 4096


def check(request: Generation) -> None:
    """Refuse a request whose parts are not possible, or not together; the model does not matter.

    Raises:
        OpError: `validation_error`.
    """
    given = [value for value in (request.messages, request.prompt, request.tokens) if value is not None]
    if len(given) != 1:
        raise invalid("Give exactly one of messages, prompt and tokens.")
    if request.messages is not None and not request.messages:
        raise invalid("There is no message to answer.")
    if request.tokens is not None and not all(_is_integer(token) for token in request.tokens):
        raise invalid("Tokens are whole numbers.")
    if request.logprobs is not None and not (_is_integer(request.logprobs) and 0 <= request.logprobs <= 20):
        raise invalid("logprobs takes a whole number from 0 to 20.")
    if request.max_tokens is not None and not _is_integer(request.max_tokens):
        raise invalid("max_tokens takes a whole number.")
    if request.echo and (request.messages is not None or request.grammar is not None):
        raise invalid("echo repeats a prompt of text or tokens, without a JSON schema. Leave it out.")
    if request.echo and request.logprobs is not None and request.draft_model is not None:
        raise invalid(
            "A prompt's log-probabilities are not computed with a draft model. Leave one of them out."
        )
    if len(request.stop) > _MAX_STOPS:
        raise invalid(f"At most {_MAX_STOPS} stop strings are possible.")
    stops: Sequence[object] = request.stop
    if not all(isinstance(stop, str) and len(stop) <= _MAX_STOP_CHARACTERS for stop in stops):
        raise invalid(f"A stop string is a text of at most {_MAX_STOP_CHARACTERS:,} characters.")
    if request.grammar is not None and request.draft_model is not None:
        raise invalid("A JSON schema cannot be followed with a draft model. Leave one of them out.")
    if request.kv_bits is not None and request.kv_bits not in (4, 8):
        raise invalid("kv_bits takes 4 or 8.")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def invalid(message: str) -> OpError:
    """Return the error of a request that cannot be answered as it is."""
    return OpError(ErrorType.VALIDATION_ERROR, message)
