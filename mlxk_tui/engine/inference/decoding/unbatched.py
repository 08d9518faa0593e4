"""Decodes single rows outside the batch: faster for a single request, and necessary for some kinds.

Those are quantized KV caches, draft models (speculative decoding), and models that cannot be batched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generation_stream, speculative_generate_step
from mlx_lm.models.cache import TokenBuffer, make_prompt_cache, trim_prompt_cache

from mlxk_tui.engine.inference.decoding import kv_quantization
from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.weights.loading import LoadedModel
from mlxk_tui.ops.core.errors import ErrorType, OpError

_DRAFT_TOKENS = 2
"""Tokens that the draft model proposes per step: mlx-lm's `num_draft_tokens`."""
# mlx 0.32 and mlx-lm 0.32 declare no types for these.
_async_eval: Callable[..., None] = mx.async_eval
_token_buffer: Callable[[list[int]], Any] = TokenBuffer


class UnbatchedRow:
    """A row with its own KV caches, which takes its own steps.

    Args:
        row: the generation.
        model: the model.
        prompt_cache: where caches are fetched from and stored.
    """

    def __init__(self, row: Row, model: LoadedModel, prompt_cache: PromptCache) -> None:
        self.row = row
        self.model = model
        found, row.cached = prompt_cache.fetch(row.prompt.tokens, row.kind)
        self.caches: list[Any] = self.new_caches() if found is None else found
        """One KV cache per layer."""
        self.tokens = row.prompt.tokens[: row.cached]
        """Token ids in the caches."""
        self.rest = row.prompt.tokens[row.cached :]
        """Token ids that are still to be prefilled."""
        self.last_prefill = 0
        """Number of the scheduler's step in which it last prefilled a chunk."""
        prompt_tokens = len(row.prompt.tokens)
        self._full = (
            0 if row.request.kv_bits is None else kv_quantization.full_precision_tokens(prompt_tokens)
        )
        """Prompt tokens that are prefilled in full precision, for a quantized cache."""
        self._prompt_cache = prompt_cache
        self._next: tuple[mx.array, mx.array] | None = None
        self._context: Any = None
        if self._full and len(self.tokens) >= self._full:
            self._quantize()  # a request that was cancelled during prefill stored it in full precision

    @property
    def prefilling(self) -> bool:
        """Whether the prompt still has tokens to prefill, besides its last one."""
        return len(self.rest) > 1

    def new_caches(self) -> list[Any]:
        """Return empty caches in full precision; they are quantized later."""
        caches: list[Any] = make_prompt_cache(self.model.model)
        return caches

    def prefill(self, chunk: int) -> int:
        """Prefill at most `chunk` tokens of the prompt, except its last one, and return their number."""
        count = min(chunk, len(self.rest) - 1)
        boundary = self.row.prompt.boundary
        for stop in (boundary, self._full):
            if len(self.tokens) < stop:
                count = min(count, stop - len(self.tokens))
        self._read(self.rest[:count])
        self.tokens = self.tokens + self.rest[:count]
        self.rest = self.rest[count:]
        if self._full and len(self.tokens) == self._full:
            self._quantize()
        if boundary and len(self.tokens) == boundary:
            self._prompt_cache.insert(self.tokens, copy.deepcopy(self.caches), self.row.kind)
        return count

    def _read(self, tokens: list[int]) -> None:
        with mx.stream(generation_stream):
            self.model.model(mx.array(tokens)[None], cache=self.caches)
            mx.eval([cache.state for cache in self.caches])
            mx.clear_cache()

    def next(self) -> tuple[int, mx.array]:
        """Return the next token id and the log-probabilities it was sampled from, (vocabulary,).

        The following step has been started asynchronously when this returns, unless this token is the last
        one of the token budget.
        """
        with mx.stream(generation_stream):
            if self._next is None:
                if self.row.processors:
                    self._context = _token_buffer(self.tokens)
                self._next = self._forward(mx.array(self.rest))
                self.tokens, self.rest = self.tokens + self.rest, []
            sampled, logprobs = self._next
            last = self.row.emitted + 1 >= self.row.prompt.max_tokens
            self._next = None if last else self._forward(sampled)
            token = _token_id(sampled)
        if not last:
            self.tokens.append(token)
            if self.row.emitted % 256 == 255:
                mx.clear_cache()
        return token, logprobs

    def first(self) -> tuple[int, mx.array]:
        """Return the first token like `next`, but without starting another step: the batch takes it."""
        with mx.stream(generation_stream):
            if self.row.processors:
                self._context = _token_buffer(self.tokens)
            sampled, logprobs = self._forward(mx.array(self.rest))
            self.tokens = self.tokens + self.rest
            self.rest = [_token_id(sampled)]
        return self.rest[0], logprobs

    def pending(self) -> tuple[int, mx.array] | None:
        """Return the token of the step that was started, without starting another; None if none was started.

        Afterwards the caches and `tokens` lack the last emitted token, which a batch continues with.
        """
        if self._next is None:
            return None
        sampled, logprobs = self._next
        self._next = None
        return _token_id(sampled), logprobs

    def end(self) -> None:
        """Store the caches in the prompt cache."""
        self._prompt_cache.insert(self.tokens, self.caches, self.row.kind)

    def _quantize(self) -> None:
        """Quantize the caches, if the request has `kv_bits`."""
        bits = self.row.request.kv_bits
        group = kv_quantization.find_group_size(self.model, bits) if bits is not None else None
        if bits is not None and group is not None:
            with mx.stream(generation_stream):
                kv_quantization.quantize(self.caches, bits, group)

    def _forward(self, inputs: mx.array) -> tuple[mx.array, mx.array]:
        logits = self.model.model(inputs[None], cache=self.caches)[:, -1, :]
        if not self._full:
            self._quantize()  # a prompt of one token
        if self._context is not None:
            context = self._context.update_and_fetch(inputs)
            for processor in self.row.processors:
                logits = processor(context, logits)
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        sampled = self.row.sampler(logprobs)
        _async_eval(sampled, logprobs)
        return sampled, logprobs.squeeze(0)


class SpeculativeRow(UnbatchedRow):
    """Speculative decoding of a row with a draft model, by `mlx_lm.generate.speculative_generate_step`."""

    def __init__(self, row: Row, model: LoadedModel, draft: LoadedModel, prompt_cache: PromptCache) -> None:
        self._draft = draft
        super().__init__(row, model, prompt_cache)
        self._steps: Any = None  # mlx-lm's generator

    def new_caches(self) -> list[Any]:
        """Return empty caches of the model's layers, then of the draft model's."""
        caches: list[Any] = make_prompt_cache(self._draft.model)
        return super().new_caches() + caches

    def _read(self, tokens: list[int]) -> None:
        split = len(self.model.model.layers)
        with mx.stream(generation_stream):
            inputs = mx.array(tokens)[None]
            self.model.model(inputs, cache=self.caches[:split])
            self._draft.model(inputs, cache=self.caches[split:])
            mx.eval([cache.state for cache in self.caches])
            mx.clear_cache()

    def next(self) -> tuple[int, mx.array]:
        """Return the next token id and the log-probabilities it was sampled from, (vocabulary,)."""
        if self._steps is None:
            before = mx.array(self.tokens, dtype=mx.uint32)
            bits = self.row.request.kv_bits
            group = kv_quantization.find_group_size(self.model, bits) if bits is not None else None
            self._steps = speculative_generate_step(
                mx.array(self.rest),
                self.model.model,
                self._draft.model,
                max_tokens=self.row.prompt.max_tokens,
                sampler=self.row.sampler,
                logits_processors=[_with_prefix(before, processor) for processor in self.row.processors],
                prompt_cache=self.caches,
                num_draft_tokens=_DRAFT_TOKENS,
                # Only has an effect for a prompt of one token: prefilled caches are already quantized.
                kv_bits=bits,
                kv_group_size=group or 64,
                quantized_kv_start=0,
            )
            self.rest = []
        token, logprobs, _ = next(self._steps)
        return int(token), logprobs

    def pending(self) -> None:
        """Return None: such a row never joins a batch."""

    def end(self) -> None:
        """Store the caches, trimmed to the prompt: after it the two models' caches have different lengths."""
        if self._steps is None:
            super().end()
            return
        self._steps.close()
        tokens = self.row.prompt.tokens
        for cache in self.caches:
            trim_prompt_cache([cache], max(0, cache.offset - len(tokens)))
        if all(cache.offset == len(tokens) for cache in self.caches):
            self._prompt_cache.insert(tokens, self.caches, self.row.kind)


def check_unbatched(model: LoadedModel, row: Row, draft: LoadedModel | None) -> None:
    """Check that the models support the row's quantized KV cache and draft model.

    Raises:
        OpError: `validation_error`.
    """
    bits = row.request.kv_bits
    group = kv_quantization.find_group_size(model, bits) if bits is not None else None
    if bits is not None and group is None:
        raise _impossible(
            f"The KV cache of {model.name} cannot be quantized to {bits} bits: its kind does not support it "
            "(for example a rotating window). Leave kv_bits out."
        )
    if draft is None:
        return
    if model.tokenizer.get_vocab() != draft.tokenizer.get_vocab():
        raise _impossible(
            f"The draft model {draft.name} has a different tokenizer than {model.name}. "
            "Choose a draft model of the same family."
        )
    for one in (model, draft):
        _check_trimming(one, row)
    if bits is not None and kv_quantization.find_group_size(draft, bits) != group:
        raise _impossible(
            f"The KV cache of the draft model {draft.name} cannot be quantized to {bits} bits like that of "
            f"{model.name}. Leave kv_bits or the draft model out."
        )


def _check_trimming(model: LoadedModel, row: Row) -> None:
    """Check that a model's cache can be trimmed when draft tokens are rejected."""
    if model.trimmable:
        return
    if not model.window:
        raise _impossible(f"{model.name} cannot be used with a draft model: its KV cache cannot be trimmed.")
    read, answer = len(row.prompt.tokens), row.prompt.max_tokens
    if read + answer + _DRAFT_TOKENS >= model.window:
        most = model.window - read - _DRAFT_TOKENS - 1
        remedy = f"Set max_tokens to at most {most}" if most > 0 else "Shorten the prompt"
        raise _impossible(
            f"{model.name} has a rotating window of {model.window:,} tokens, which a draft model cannot "
            f"exceed; the prompt has {read:,} tokens and the answer may have {answer:,}. {remedy}, or leave "
            "the draft model out."
        )


def _token_id(sampled: mx.array) -> int:
    """Return the token id in an array of one element; waits for its step."""
    token: Any = sampled.item()
    return int(token)


def _with_prefix(before: mx.array, processor: Any) -> Any:
    """Return a logits processor that gets the prefilled tokens too, which mlx-lm does not pass to it."""

    def processed(tokens: mx.array, logits: mx.array) -> mx.array:
        result: mx.array = processor(mx.concatenate([before, tokens.astype(mx.uint32)]), logits)
        return result

    return processed


def _impossible(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)
