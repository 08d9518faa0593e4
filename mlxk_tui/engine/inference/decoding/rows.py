"""The state of one running generation: its request, its counts and its times."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from mlxk_tui.engine.generation import (
    Finished,
    FinishReason,
    GenerationRequest,
    GenerationTimings,
    TokenUsage,
)
from mlxk_tui.engine.inference.decoding.samplers import LogitsProcessor, Sampler
from mlxk_tui.engine.inference.output.delta_assembler import DeltaAssembler
from mlxk_tui.engine.inference.prompts.prompt_builder import Prompt


@dataclass
class Row:
    """A generation on the MLX thread: one row of the batch."""

    id: int
    request: GenerationRequest
    prompt: Prompt
    answer: DeltaAssembler
    sampler: Sampler
    processors: list[LogitsProcessor]
    arrived: float
    """When the request arrived, in seconds on the monotonic clock."""
    cached: int = 0
    """Prompt tokens from the prompt cache."""
    emitted: int = 0
    """Generated tokens."""
    begun: float = field(default_factory=time.monotonic)
    """When prefill could begin, on the same clock."""
    first_token: float | None = None
    """When the first token was sampled, on the same clock."""

    @property
    def kind(self) -> Hashable:
        """Kind of its KV cache, for `PromptCache`; None for a plain one."""
        if self.request.draft_model is not None:
            return ("draft", self.request.draft_model, self.request.kv_bits)
        return self.request.kv_bits

    @property
    def scores_prompt(self) -> bool:
        """Whether the request is for the prompt's log-probabilities, or for the prompt alone."""
        return self.request.echo and (self.request.logprobs is not None or self.prompt.max_tokens == 0)

    def finished(self, reason: FinishReason, peak_memory_bytes: int) -> Finished:
        """Return the `Finished` event.

        Args:
            reason: why the generation ended.
            peak_memory_bytes: MLX's peak memory.
        """
        now = time.monotonic()
        first = self.first_token or now
        prompt_s = first - self.begun
        generation_s = now - first
        prefilled = len(self.prompt.tokens) - self.cached
        return Finished(
            finish_reason=self.answer.finish_reason(reason),
            usage=TokenUsage(
                prompt_tokens=len(self.prompt.tokens),
                cached_tokens=self.cached,
                completion_tokens=self.answer.tokens,
                reasoning_tokens=self.answer.reasoning_tokens,
            ),
            timings=GenerationTimings(
                queued_s=self.begun - self.arrived,
                time_to_first_token_s=first - self.arrived,
                prompt_s=prompt_s,
                generation_s=generation_s,
                prompt_tps=prefilled / prompt_s if prompt_s > 0 else 0.0,
                generation_tps=max(0, self.answer.tokens - 1) / generation_s if generation_s > 0 else 0.0,
                peak_memory_bytes=peak_memory_bytes,
            ),
            stop_string=self.answer.stop_string,
        )
