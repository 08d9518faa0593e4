"""Decodes one row outside the batch: the quickest way while it is alone, the only one for some."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generation_stream, speculative_generate_step
from mlx_lm.models.cache import TokenBuffer, make_prompt_cache, trim_prompt_cache

from mlxk_tui.engine.inference.loading import LoadedModel
from mlxk_tui.engine.inference.prompt_cache import PromptCache
from mlxk_tui.engine.inference.rows import Row
from mlxk_tui.ops.errors import ErrorType, OpError

_QUANTIZED_GROUPS = (64, 32)
# mlx 0.32 and mlx-lm 0.32 declare no types for these.
_async_eval: Callable[..., None] = mx.async_eval
_token_buffer: Callable[[list[int]], Any] = TokenBuffer


class Solo:
    """One row with caches of its own, stepped by whoever owns it."""

    def __init__(self, row: Row, model: LoadedModel, kept: PromptCache) -> None:
        self.row = row
        self.model = model
        found, row.cached = kept.fetch(row.prompt.tokens, row.kind)
        self.caches: list[Any] = self.fresh_caches() if found is None else found
        self.tokens = row.prompt.tokens[: row.cached]
        """What the caches hold."""
        self.rest = row.prompt.tokens[row.cached :]
        """What is left of the prompt."""
        self._kept = kept
        self._next: tuple[mx.array, mx.array] | None = None
        self._context: Any = None

    @property
    def prefilling(self) -> bool:
        """Whether more than the last token of the prompt is still to be read."""
        return len(self.rest) > 1

    def fresh_caches(self) -> list[Any]:
        """Return empty caches of the row's kind."""
        bits = self.row.request.kv_bits
        caches = make_prompt_cache(self.model.model)
        return caches if bits is None else _quantized(self.model, caches, bits)

    def prefill(self, chunk: int) -> int:
        """Read at most `chunk` tokens of the prompt and return how many."""
        count = min(chunk, len(self.rest) - 1)
        boundary = self.row.prompt.boundary
        if len(self.tokens) < boundary:
            count = min(count, boundary - len(self.tokens))
        self._read(self.rest[:count])
        self.tokens = self.tokens + self.rest[:count]
        self.rest = self.rest[count:]
        if boundary and len(self.tokens) == boundary:
            self._kept.insert(self.tokens, copy.deepcopy(self.caches), self.row.kind)
        return count

    def _read(self, tokens: list[int]) -> None:
        with mx.stream(generation_stream):
            self.model.model(mx.array(tokens)[None], cache=self.caches)
            mx.eval([cache.state for cache in self.caches])
            mx.clear_cache()

    def next(self) -> tuple[int, mx.array]:
        """Return the next token and the log-probabilities it was drawn from.

        The step after it is under way when this returns, unless it was the last one allowed.
        """
        with mx.stream(generation_stream):
            if self._next is None:
                if self.row.processors:
                    self._context = _token_buffer(self.tokens)
                self._next = self._forward(mx.array(self.rest))
                self.tokens, self.rest = self.tokens + self.rest, []
            drawn, logprobs = self._next
            last = self.row.emitted + 1 >= self.row.prompt.max_tokens
            self._next = None if last else self._forward(drawn)
            token = _id_of(drawn)
        if not last:
            self.tokens.append(token)
            if self.row.emitted % 256 == 255:
                mx.clear_cache()
        return token, logprobs

    def pending(self) -> tuple[int, mx.array] | None:
        """Return the token that `next` would, without a further step; None where none was begun.

        After it the caches and `tokens` are one token short of what was emitted: a batch goes on
        from there.
        """
        if self._next is None:
            return None
        drawn, logprobs = self._next
        self._next = None
        return _id_of(drawn), logprobs

    def end(self) -> None:
        """Keep what was read for later requests."""
        self._kept.insert(self.tokens, self.caches, self.row.kind)

    def _forward(self, inputs: mx.array) -> tuple[mx.array, mx.array]:
        logits = self.model.model(inputs[None], cache=self.caches)[:, -1, :]
        if self._context is not None:
            context = self._context.update_and_fetch(inputs)
            for processor in self.row.processors:
                logits = processor(context, logits)
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        drawn = self.row.sampler(logprobs)
        _async_eval(drawn, logprobs)
        return drawn, logprobs.squeeze(0)


class Speculative(Solo):
    """One row with a draft model that guesses ahead."""

    def __init__(self, row: Row, model: LoadedModel, draft: LoadedModel, kept: PromptCache) -> None:
        self._draft = draft
        super().__init__(row, model, kept)
        self._steps: Any = None  # mlx-lm's generator

    def fresh_caches(self) -> list[Any]:
        """Return empty caches of the model, then of the draft model."""
        caches = make_prompt_cache(self._draft.model)
        bits = self.row.request.kv_bits
        return super().fresh_caches() + (caches if bits is None else _quantized(self._draft, caches, bits))

    def _read(self, tokens: list[int]) -> None:
        split = len(self.model.model.layers)
        with mx.stream(generation_stream):
            inputs = mx.array(tokens)[None]
            self.model.model(inputs, cache=self.caches[:split])
            self._draft.model(inputs, cache=self.caches[split:])
            mx.eval([cache.state for cache in self.caches])
            mx.clear_cache()

    def next(self) -> tuple[int, mx.array]:
        """Return the next token and the log-probabilities it was drawn from."""
        if self._steps is None:
            before = mx.array(self.tokens, dtype=mx.uint32)
            self._steps = speculative_generate_step(
                mx.array(self.rest),
                self.model.model,
                self._draft.model,
                max_tokens=self.row.prompt.max_tokens,
                sampler=self.row.sampler,
                logits_processors=[_after(before, processor) for processor in self.row.processors],
                prompt_cache=self.caches,
            )
            self.rest = []
        token, logprobs, _ = next(self._steps)
        return int(token), logprobs

    def pending(self) -> None:
        """Return None: such a row is never moved."""

    def end(self) -> None:
        """Keep the prompt for later requests; how far the two models' caches went on differs."""
        if self._steps is None:
            super().end()
            return
        self._steps.close()
        tokens = self.row.prompt.tokens
        for cache in self.caches:
            trim_prompt_cache([cache], max(0, cache.offset - len(tokens)))
        if all(cache.offset == len(tokens) for cache in self.caches):
            self._kept.insert(tokens, self.caches, self.row.kind)


def check_alone(model: LoadedModel, row: Row, draft: LoadedModel | None) -> None:
    """Refuse what mlx-lm cannot do with these models.

    Raises:
        OpError: `validation_error`.
    """
    if row.request.kv_bits is not None and _group(model) is None:
        raise _impossible(f"The KV cache of {model.name} cannot be quantised. Leave kv_bits out.")
    if draft is None:
        return
    if not (model.trimmable and draft.trimmable):
        raise _impossible(f"{model.name} cannot take a draft model: its cache cannot be cut back.")
    if row.request.kv_bits is not None and _group(draft) is None:
        raise _impossible(f"The KV cache of {draft.name} cannot be quantised. Leave kv_bits out.")
    if model.tokenizer.get_vocab() != draft.tokenizer.get_vocab():
        raise _impossible(
            f"{draft.name} has another tokenizer than {model.name}. Take a draft model of its family."
        )


def _id_of(drawn: mx.array) -> int:
    """Return the one token id in an array; waits for its step."""
    token: Any = drawn.item()
    return int(token)


def _after(before: mx.array, processor: Any) -> Any:
    """Let a processor see the tokens that were read before."""

    def processed(tokens: mx.array, logits: mx.array) -> mx.array:
        result: mx.array = processor(mx.concatenate([before, tokens.astype(mx.uint32)]), logits)
        return result

    return processed


def _group(model: LoadedModel) -> int | None:
    return next(
        (g for g in _QUANTIZED_GROUPS if model.head_sizes and not any(s % g for s in model.head_sizes)), None
    )


def _quantized(model: LoadedModel, caches: list[Any], bits: int) -> list[Any]:
    return [cache.to_quantized(group_size=_group(model), bits=bits) for cache in caches]


def _impossible(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)
