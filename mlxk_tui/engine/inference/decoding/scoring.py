"""Reads a prompt and tells how likely each of its tokens was: what `echo` with `logprobs` asks for."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.generate import generation_stream

from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.solo import Solo
from mlxk_tui.engine.inference.output.log_probabilities import likeliest
from mlxk_tui.engine.inference.weights.loading import LoadedModel

_MOST_LOGITS = 2**23
"""Logits at a time, 32 MB in single precision: a vocabulary of 262,144 is read 32 tokens at a time."""


class Scoring(Solo):
    """One row whose prompt is read token for token, beside all others; nothing of it comes from a cache.

    The logits of a piece of the prompt are turned into log-probabilities and freed before the next one.
    """

    def __init__(self, row: Row, model: LoadedModel) -> None:
        # A cache that was kept has no logits; and thousands of short texts would drive chats out of it.
        super().__init__(row, model, PromptCache(0))
        self._top = row.request.logprobs or 0
        if row.request.logprobs is None:
            self.tokens, self.rest = (
                self.rest[:-1],
                self.rest[-1:],
            )  # only its text is wanted: nothing to read

    @property
    def over(self) -> bool:
        """Whether the prompt has been read and nothing but that was wanted."""
        return self.row.prompt.max_tokens == 0 and not self.prefilling

    def prefill(self, chunk: int) -> int:
        """Read at most `chunk` tokens of the prompt and return how many."""
        return super().prefill(max(1, min(chunk, _MOST_LOGITS // self.model.vocab_size)))

    def _read(self, tokens: list[int]) -> None:
        following = self.rest[1 : len(tokens) + 1]
        with mx.stream(generation_stream):
            logits = self.model.model(mx.array(tokens)[None], cache=self.caches)[0].astype(mx.float32)
            logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            del logits
            picked = mx.take_along_axis(logprobs, mx.array(following)[:, None], axis=-1)[:, 0]
            mx.eval(picked, [cache.state for cache in self.caches])
            top = likeliest(logprobs, self._top)
            own: Any = picked.tolist()
            del logprobs, picked
            mx.clear_cache()
        for token, logprob, best in zip(following, own, top, strict=True):
            self.row.answer.score(token, logprob, best)

    def end(self) -> None:
        """Keep nothing."""
