"""One running generation: what it asked for, what it has got, and when."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from mlxk_tui.engine.generation import Finished, FinishReason, Generation, GenerationTimings, TokenUsage
from mlxk_tui.engine.inference.decoding.samplers import Processor, Sampler
from mlxk_tui.engine.inference.output.answer import DeltaAssembler
from mlxk_tui.engine.inference.prompts.prompting import Prompt


@dataclass
class Row:
    """A generation on the MLX thread."""

    id: int
    request: Generation
    prompt: Prompt
    answer: DeltaAssembler
    sampler: Sampler
    processors: list[Processor]
    arrived: float
    """When the request came, on the monotonic clock; like the next ones, in seconds."""
    cached: int = 0
    """Tokens of the prompt that needed no prefill."""
    emitted: int = 0
    """Tokens generated."""
    begun: float = field(default_factory=time.monotonic)
    first_token: float | None = None

    @property
    def kind(self) -> Hashable:
        """What kind of cache it needs; None is the usual one."""
        if self.request.draft_model is not None:
            return ("draft", self.request.draft_model, self.request.kv_bits)
        return self.request.kv_bits

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt are wanted, or nothing but the prompt."""
        return self.request.echo and (self.request.logprobs is not None or self.prompt.max_tokens == 0)

    def finished(self, reason: FinishReason, peak_memory_bytes: int) -> Finished:
        """Return its last event."""
        now = time.monotonic()
        first = self.first_token or now
        prompt_s = first - self.begun
        generation_s = now - first
        prefilled = len(self.prompt.tokens) - self.cached
        return Finished(
            finish_reason=self.answer.reason(reason),
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
