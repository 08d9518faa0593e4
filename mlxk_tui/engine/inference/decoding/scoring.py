"""Prefills a prompt and computes the log-probabilities of its tokens, for `echo` with `logprobs`."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from mlx_lm.generate import generation_stream

from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.decoding.unbatched import UnbatchedRow
from mlxk_tui.engine.inference.output.logprobs import top_logprobs
from mlxk_tui.engine.inference.weights.loading import LoadedModel

_MAX_LOGITS = 2**23
"""Maximum number of logits per chunk, 32 MB as float32: 32 tokens with a vocabulary of 262,144."""


class ScoringRow(UnbatchedRow):
    """A row that returns the log-probabilities of its prompt. It does not use the prompt cache.

    The logits of a chunk are converted to log-probabilities and freed before the next chunk.
    """

    def __init__(self, row: Row, model: LoadedModel) -> None:
        # Cached prompts have no logits, and thousands of short texts would evict the chats from the cache.
        super().__init__(row, model, PromptCache(0))
        self._top = row.request.logprobs or 0
        if row.request.logprobs is None:  # only the text was requested: no prefill
            self.tokens, self.rest = self.rest[:-1], self.rest[-1:]

    @property
    def done(self) -> bool:
        """Whether the prompt has been prefilled and no token is to be generated."""
        return self.row.prompt.max_tokens == 0 and not self.prefilling

    def prefill(self, chunk: int) -> int:
        """Prefill at most `chunk` tokens and return their number; see `UnbatchedRow.prefill`."""
        return super().prefill(max(1, min(chunk, _MAX_LOGITS // self.model.vocab_size)))

    def _read(self, tokens: list[int]) -> None:
        following = self.rest[1 : len(tokens) + 1]
        with mx.stream(generation_stream):
            logits = self.model.model(mx.array(tokens)[None], cache=self.caches)[0].astype(mx.float32)
            logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
            del logits
            picked = mx.take_along_axis(logprobs, mx.array(following)[:, None], axis=-1)[:, 0]
            mx.eval(picked, [cache.state for cache in self.caches])
            top = top_logprobs(logprobs, self._top)
            own: Any = picked.tolist()
            del logprobs, picked
            mx.clear_cache()
        for token, logprob, best in zip(following, own, top, strict=True):
            self.row.answer.add_prompt_logprob(token, logprob, best)

    def end(self) -> None:
        """Discard the caches: a scored prompt is not stored."""
