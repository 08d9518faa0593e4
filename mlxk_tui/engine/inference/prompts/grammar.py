"""Constrained decoding: a JSON schema becomes a logits processor that lets only fitting tokens through.

A model that reasons does so freely first: the schema binds the answer, which begins where the
reasoning ends. Where the prompt has not opened the reasoning the model has to want it: its first
choice for the first token opens it. Reasoning cannot end the turn, only itself; where it never does
`max_tokens` cuts it off.

Where there are tools too the answer is either data that follows the schema or tool calls, and the model
shows in the same way what it wants: where its first choice, after blanks, begins the marker of a call, the
call is free to its end marker, and nothing but another call or the end of the turn may follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxk_tui.engine.formats.splitting import StopMatcher
from mlxk_tui.engine.inference.prompts.compiling import reason_of

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from mlxk_tui.engine.inference.weights.loading import LoadedModel

_MAX_BLANKS = 4
"""Tokens of blanks that may stand before a call."""

Mask = npt.NDArray[np.bool_]


class Constraint:
    """One answer that follows a schema; a logits processor of one row, called once a step.

    It never raises, as that would end every stream: what goes wrong is in `error`, and the row has to
    be ended by whoever looks.

    Args:
        matcher: the compiled schema.
        model: the model that answers, which the schema was compiled for.
        prompt_length: tokens of the prompt.
        reasoning_open: the prompt ends inside reasoning.
        may_reason: the model may begin with reasoning of its own accord.
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
        """Why the schema cannot be followed any further."""
        self.reasons = reasoning_open or may_reason
        """Whether the answer may begin with reasoning."""
        self._matcher = matcher
        self._tokenizer = model.tokenizer
        self._markers = model.grammar_tokenizer.markers
        self._stops = np.asarray(sorted(model.stop_tokens), dtype=np.int64)
        self._prompt_length = prompt_length
        self._taken = 0
        self._opening: Sequence[int] = model.tokenizer.think_start_tokens if may_reason else ()
        self._opened = 0
        self._calls: _Calls | None = None
        self._closing: Sequence[int] = model.tokenizer.think_end_tokens if self.reasons else ()
        self._closed = 0
        self._reasoning = StopMatcher((model.tokenizer.think_end,)) if reasoning_open else None

    def or_call(self, start: str, end: str) -> None:
        """Let the model call tools instead; to be said before the first token.

        Args:
            start: the marker that begins a call.
            end: the one that ends it; where it is empty nothing but the end of the turn does.
        """
        marker = [int(token) for token in self._tokenizer.encode(start, add_special_tokens=False)]
        if marker:
            self._calls = _Calls(marker, end)

    @property
    def binding(self) -> bool:
        """Whether what comes next has to follow the schema."""
        return self._reasoning is None and not self._opened and (self._calls is None or not self._calls.begun)

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """Return the logits (1, vocabulary) with those of all tokens that do not fit at minus infinity.

        Args:
            tokens: the prompt and all that was generated.
            logits: of the next token.
        """
        done = self._prompt_length + self._taken
        if tokens.size > done:
            fresh: Any = tokens[done:].tolist()
            for token in fresh:
                self.take(token)
        if self._reasoning is not None:
            return self._reason_on(logits)
        if self._opening and not self._taken:
            first: Any = mx.argmax(logits).item()
            if first == self._opening[0]:
                return _only(logits, first)
        if self._calls is not None and not self._opened:
            choice = self._choice(self._calls, logits)
            if choice is not None:
                return choice
        return mx.where(mx.array(self._allowed(logits.shape[-1])), logits, _never(logits))

    def _choice(self, calls: _Calls, logits: mx.array) -> mx.array | None:
        """Return the logits of a token that is not the schema's concern; None where the schema binds it."""
        calls.wants = None
        if calls.payload is not None:
            return logits
        if calls.entered:
            return _only(logits, calls.marker[calls.entered])
        first: Any = mx.argmax(logits).item()
        if first == calls.marker[0] and (calls.begun or not self._allowed(logits.shape[-1])[first]):
            calls.wants = _Wanted.CALL
            return _only(logits, first)
        if calls.blanks < _MAX_BLANKS and first not in self._stops and self._is_blank(first):
            calls.wants = _Wanted.BLANK
            return _only(logits, first)
        if calls.begun:
            ends = mx.zeros(logits.shape[-1], dtype=mx.bool_)
            ends[mx.array(self._stops)] = True
            return mx.where(ends, logits, _never(logits))
        return None

    def _is_blank(self, token: int) -> bool:
        return str(self._tokenizer.decode([token])).isspace()

    def take(self, token: int) -> None:
        """Go on by a token that was drawn."""
        self._taken += 1
        if self._reasoning is not None:
            self._closed = self._closed + 1 if token == self._closing[self._closed] else 0
            self._reasoning.push(str(self._tokenizer.decode([token])))
            if self._reasoning.stopped is not None or self._closed == len(self._closing):
                self._reasoning = None
        elif self._opened or (self._taken == 1 and self._opening and token == self._opening[0]):
            self._opened += 1
            if self._opened == len(self._opening):
                self._opened = 0
                self._reasoning = StopMatcher((self._tokenizer.think_end,))
        elif self._calls is not None and self._calls.take(token, self._tokenizer):
            return
        elif token not in self._stops:
            self._calls = None  # the model has chosen the schema
            if not self._matcher.consume_token(token):
                self._fail()

    def _reason_on(self, logits: mx.array) -> mx.array:
        """Let everything through but an end of turn: a model that wants one closes its reasoning instead."""
        stops = mx.array(self._stops)
        free = mx.put_along_axis(logits, stops[None], _never(logits), axis=-1)
        ends = (stops == mx.argmax(logits)).any()
        return mx.where(ends, _only(logits, self._closing[self._closed]), free)

    def completed_by(self, token: int, count: int) -> bool:
        """Tell whether the answer is whole: nothing but an end of turn could follow.

        Args:
            token: the last one that was generated.
            count: how many were, it included.
        """
        if self._taken < count:
            self.take(token)
        whole = self._taken == count and self.error is None and self.binding
        return whole and self._matcher.is_stopped()

    def _allowed(self, size: int) -> Mask:
        """Return what may come next, (size,)."""
        allowed = np.zeros(size, dtype=np.bool_)
        if self._opened:
            allowed[self._opening[self._opened]] = True
            return allowed
        if self.error is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            fitting = np.unpackbits(bits, bitorder="little")[:size].astype(np.bool_)
            allowed[: len(fitting)] = fitting
            if self._matcher.is_error():
                self._fail()
        if self.error is not None:
            allowed[:] = False
        allowed[self._markers[self._markers < size]] = False
        # The matcher knows one of a model's several ends of turn.
        allowed[self._stops] = self.error is not None or self._matcher.is_accepting()
        if not allowed.any():
            self.error = "no token of the model fits"
            allowed[self._stops] = True
        return allowed

    def _fail(self) -> None:
        self.error = reason_of(self._matcher.get_error())


class _Wanted(Enum):
    """What the model wants instead of the schema's data."""

    CALL = "call"
    BLANK = "blank"


class _Calls:
    """How far the model is with calling tools.

    Args:
        marker: tokens of the marker that begins a call.
        end: the marker that ends it.
    """

    def __init__(self, marker: Sequence[int], end: str) -> None:
        self.marker = marker
        self.wants: _Wanted | None = None
        """What the next token is."""
        self.begun = False
        """Whether there was a call: then no data follows."""
        self.entered = 0
        """Tokens of the marker so far, while it is not whole."""
        self.payload: StopMatcher | None = None
        """Looks for the end of the call, inside one."""
        self.blanks = 0
        self._end = end

    def take(self, token: int, tokenizer: Any) -> bool:
        """Go on by a token; return False where it is the schema's."""
        if self.payload is not None:
            self.payload.push(str(tokenizer.decode([token])))
            if self.payload.stopped is not None:
                self.payload, self.blanks = None, 0
        elif self.entered or self.wants is _Wanted.CALL:
            self.begun = True
            self.entered += 1
            if self.entered == len(self.marker):
                self.entered, self.payload = 0, StopMatcher((self._end,))
        elif self.wants is _Wanted.BLANK:
            self.blanks += 1
        else:
            return self.begun
        self.wants = None
        return True


def _never(logits: mx.array) -> mx.array:
    return mx.array(-np.inf, dtype=logits.dtype)


def _only(logits: mx.array, token: int) -> mx.array:
    """Return logits that leave one token."""
    return mx.where(mx.arange(logits.shape[-1]) == token, logits, _never(logits))
