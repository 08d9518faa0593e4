"""Constrained decoding: a logits processor that masks all tokens that do not match a grammar.

Reasoning is not constrained: the grammar applies to the answer, which begins after it. If the prompt does not
end inside reasoning, the model decides: reasoning begins if the most likely first token is its start marker.
Inside reasoning the turn cannot end, only the reasoning itself; if it never ends, `max_tokens` ends it.

If there are tools too, the answer is either data that matches the grammar or tool calls. Again the model
decides: a call begins if its start marker is the most likely token, after optional whitespace. The call is
not constrained up to its end marker, and only another call or the end of the turn may follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxk_tui.engine.formats.splitting import StopMatcher
from mlxk_tui.engine.inference.prompts.grammar_compiler import error_reason

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from mlxk_tui.engine.inference.weights.loading import LoadedModel

_MAX_BLANKS = 4
"""Maximum number of whitespace tokens before a call."""

Mask = npt.NDArray[np.bool_]
"""Allowed tokens, (vocabulary,)."""


class GrammarConstraint:
    """A logits processor for one row whose answer must match a grammar.

    It never raises, because that would end all streams. Errors are stored in `error`, and the caller has to
    end the row.

    Args:
        matcher: the compiled grammar.
        model: the model, which the grammar was compiled for.
        prompt_length: number of prompt tokens.
        reasoning_open: the prompt ends inside reasoning.
        may_reason: the model may begin its answer with reasoning.
    """

    def __init__(
        self,
        matcher: LLMatcher,
        model: LoadedModel,
        *,
        prompt_length: int,
        reasoning_open: bool = False,
        may_reason: bool = False,
    ) -> None:
        self.error: str | None = None
        """Why no further token is possible; None if there is no error."""
        self.reasons = reasoning_open or may_reason
        """Whether the answer may begin with reasoning."""
        self._matcher = matcher
        self._tokenizer = model.tokenizer
        self._markers = model.grammar_tokenizer.markers
        self._stops = np.asarray(sorted(model.stop_tokens), dtype=np.int64)
        self._prompt_length = prompt_length
        self._count = 0
        self._opening: Sequence[int] = model.tokenizer.think_start_tokens if may_reason else ()
        self._opened = 0
        self._calls: _ToolCallState | None = None
        self._closing: Sequence[int] = model.tokenizer.think_end_tokens if self.reasons else ()
        self._closed = 0
        self._reasoning = StopMatcher((model.tokenizer.think_end,)) if reasoning_open else None

    def allow_tool_calls(self, start: str, end: str) -> None:
        """Also allow tool calls instead of data. Call this before the first token.

        Args:
            start: the start marker of a call.
            end: its end marker; if it is empty, only the end of the turn ends a call.
        """
        marker = [int(token) for token in self._tokenizer.encode(start, add_special_tokens=False)]
        if marker:
            self._calls = _ToolCallState(marker, end)

    @property
    def active(self) -> bool:
        """Whether the next token must match the grammar."""
        return self._reasoning is None and not self._opened and (self._calls is None or not self._calls.begun)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Return the logits with those of disallowed tokens set to minus infinity, (1, vocabulary).

        Args:
            tokens: token ids of the prompt and the answer so far, (tokens,).
            logits: logits of the next token, (1, vocabulary).
        """
        done = self._prompt_length + self._count
        if tokens.size > done:
            new: Any = tokens[done:].tolist()
            for token in new:
                self.advance(token)
        if self._reasoning is not None:
            return self._mask_reasoning(logits)
        if self._opening and not self._count:
            first: Any = mx.argmax(logits).item()
            if first == self._opening[0]:
                return _only(logits, first)
        if self._calls is not None and not self._opened:
            masked = self._mask_calls(self._calls, logits)
            if masked is not None:
                return masked
        return mx.where(mx.array(self._allowed(logits.shape[-1])), logits, _minus_infinity(logits))

    def _mask_calls(self, calls: _ToolCallState, logits: mx.array) -> mx.array | None:
        """Return the masked logits of a token before or inside tool calls; None if the grammar applies."""
        calls.next_is = None
        if calls.payload is not None:
            return logits
        if calls.entered:
            return _only(logits, calls.marker[calls.entered])
        first: Any = mx.argmax(logits).item()
        if first == calls.marker[0] and (calls.begun or not self._allowed(logits.shape[-1])[first]):
            calls.next_is = _NextToken.CALL
            return _only(logits, first)
        if calls.blanks < _MAX_BLANKS and first not in self._stops and self._is_blank(first):
            calls.next_is = _NextToken.BLANK
            return _only(logits, first)
        if calls.begun:
            ends = mx.zeros(logits.shape[-1], dtype=mx.bool_)
            ends[mx.array(self._stops)] = True
            return mx.where(ends, logits, _minus_infinity(logits))
        return None

    def _is_blank(self, token: int) -> bool:
        return str(self._tokenizer.decode([token])).isspace()

    def advance(self, token: int) -> None:
        """Update the state with a sampled token."""
        self._count += 1
        if self._reasoning is not None:
            self._closed = self._closed + 1 if token == self._closing[self._closed] else 0
            self._reasoning.push(str(self._tokenizer.decode([token])))
            if self._reasoning.stopped is not None or self._closed == len(self._closing):
                self._reasoning = None
        elif self._opened or (self._count == 1 and self._opening and token == self._opening[0]):
            self._opened += 1
            if self._opened == len(self._opening):
                self._opened = 0
                self._reasoning = StopMatcher((self._tokenizer.think_end,))
        elif self._calls is not None and self._calls.advance(token, self._tokenizer):
            return
        elif token not in self._stops:
            self._calls = None  # the model has decided for data
            if not self._matcher.consume_token(token):
                self._fail()

    def _mask_reasoning(self, logits: mx.array) -> mx.array:
        """Mask end-of-turn tokens; if one of them is most likely, force the end of the reasoning instead."""
        stops = mx.array(self._stops)
        free = mx.put_along_axis(logits, stops[None], _minus_infinity(logits), axis=-1)
        ends = (stops == mx.argmax(logits)).any()
        return mx.where(ends, _only(logits, self._closing[self._closed]), free)

    def completed_by(self, token: int, count: int) -> bool:
        """Return whether the answer is complete, so that only the end of the turn could follow.

        Args:
            token: id of the last token.
            count: number of generated tokens, including it.
        """
        if self._count < count:
            self.advance(token)
        active = self._count == count and self.error is None and self.active
        return active and self._matcher.is_stopped()

    def _allowed(self, size: int) -> Mask:
        """Return the tokens that match the grammar, (size,)."""
        allowed = np.zeros(size, dtype=np.bool_)
        if self._opened:
            allowed[self._opening[self._opened]] = True
            return allowed
        if self.error is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            matching = np.unpackbits(bits, bitorder="little")[:size].astype(np.bool_)
            allowed[: len(matching)] = matching
            if self._matcher.is_error():
                self._fail()
        if self.error is not None:
            allowed[:] = False
        allowed[self._markers[self._markers < size]] = False
        # The matcher knows only one of a model's end-of-turn tokens.
        allowed[self._stops] = self.error is not None or self._matcher.is_accepting()
        if not allowed.any():
            self.error = "no token of the model matches"
            allowed[self._stops] = True
        return allowed

    def _fail(self) -> None:
        self.error = error_reason(self._matcher.get_error())


class _NextToken(Enum):
    """The kind of a forced token that is not data."""

    CALL = "call"
    """The first token of a call's start marker."""
    BLANK = "blank"
    """Whitespace."""


class _ToolCallState:
    """The progress of tool calls in an answer.

    Args:
        marker: token ids of the start marker.
        end: the end marker.
    """

    def __init__(self, marker: Sequence[int], end: str) -> None:
        self.marker = marker
        self.next_is: _NextToken | None = None
        """Kind of the next token; None if it is data."""
        self.begun = False
        """Whether a call has begun; data is no longer possible then."""
        self.entered = 0
        """Number of tokens of an incomplete start marker so far."""
        self.payload: StopMatcher | None = None
        """Searches for the end marker; None outside of a call."""
        self.blanks = 0
        """Number of whitespace tokens before a call."""
        self._end = end

    def advance(self, token: int, tokenizer: Any) -> bool:
        """Update the state with a token; return False if the token is data."""
        if self.payload is not None:
            self.payload.push(str(tokenizer.decode([token])))
            if self.payload.stopped is not None:
                self.payload, self.blanks = None, 0
        elif self.entered or self.next_is is _NextToken.CALL:
            self.begun = True
            self.entered += 1
            if self.entered == len(self.marker):
                self.entered, self.payload = 0, StopMatcher((self._end,))
        elif self.next_is is _NextToken.BLANK:
            self.blanks += 1
        else:
            return self.begun
        self.next_is = None
        return True


def _minus_infinity(logits: mx.array) -> mx.array:
    return mx.array(-np.inf, dtype=logits.dtype)


def _only(logits: mx.array, token: int) -> mx.array:
    """Return the logits with all tokens but one masked."""
    return mx.where(mx.arange(logits.shape[-1]) == token, logits, _minus_infinity(logits))
