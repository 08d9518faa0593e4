"""Decodes one row outside the batch: the quickest way while it is alone, the only one for some."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generation_stream, speculative_generate_step
from mlx_lm.models.cache import TokenBuffer, make_prompt_cache, trim_prompt_cache

from mlxk_tui.engine.inference.decoding import kv_bits
from mlxk_tui.engine.inference.decoding.prompt_cache import PromptCache
from mlxk_tui.engine.inference.decoding.rows import Row
from mlxk_tui.engine.inference.weights.loading import LoadedModel
from mlxk_tui.ops.core.errors import ErrorType, OpError

_GUESSED = 2
"""Tokens that a draft model guesses at a time: mlx-lm's `num_draft_tokens`."""
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
        self.turn = 0
        """When it last read a piece of its prompt: the number of the decoder's step."""
        self._full = 0 if row.request.kv_bits is None else kv_bits.quantized_from(len(row.prompt.tokens))
        self._kept = kept
        self._next: tuple[mx.array, mx.array] | None = None
        self._context: Any = None
        if self._full and len(self.tokens) >= self._full:
            self._quantize()  # kept when its reading had been given up

    @property
    def prefilling(self) -> bool:
        """Whether more than the last token of the prompt is still to be read."""
        return len(self.rest) > 1

    def fresh_caches(self) -> list[Any]:
        """Return empty caches; they are quantized later."""
        caches: list[Any] = make_prompt_cache(self.model.model)
        return caches

    def prefill(self, chunk: int) -> int:
        """Read at most `chunk` tokens of the prompt and return how many."""
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

    def first(self) -> tuple[int, mx.array]:
        """Return the first token, as `next` does, and leave the step after it to the batch that it joins."""
        with mx.stream(generation_stream):
            if self.row.processors:
                self._context = _token_buffer(self.tokens)
            drawn, logprobs = self._forward(mx.array(self.rest))
            self.tokens = self.tokens + self.rest
            self.rest = [_id_of(drawn)]
        return self.rest[0], logprobs

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

    def _quantize(self) -> None:
        """Quantize what was read, from where the row's kind asks for it."""
        bits = self.row.request.kv_bits
        group = kv_bits.group_size(self.model, bits) if bits is not None else None
        if bits is not None and group is not None:
            with mx.stream(generation_stream):
                kv_bits.quantize(self.caches, bits, group)

    def _forward(self, inputs: mx.array) -> tuple[mx.array, mx.array]:
        logits = self.model.model(inputs[None], cache=self.caches)[:, -1, :]
        if not self._full:
            self._quantize()  # a prompt of one token
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
        caches: list[Any] = make_prompt_cache(self._draft.model)
        return super().fresh_caches() + caches

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
            bits = self.row.request.kv_bits
            group = kv_bits.group_size(self.model, bits) if bits is not None else None
            self._steps = speculative_generate_step(
                mx.array(self.rest),
                self.model.model,
                self._draft.model,
                max_tokens=self.row.prompt.max_tokens,
                sampler=self.row.sampler,
                logits_processors=[_after(before, processor) for processor in self.row.processors],
                prompt_cache=self.caches,
                num_draft_tokens=_GUESSED,
                # Does nothing but for a prompt of one token: what was read before is quantized already.
                kv_bits=bits,
                kv_group_size=group or 64,
                quantized_kv_start=0,
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
    bits = row.request.kv_bits
    group = kv_bits.group_size(model, bits) if bits is not None else None
    if bits is not None and group is None:
        raise _impossible(
            f"The KV cache of {model.name} cannot be quantized to {bits} bits: it is of another kind "
            "(such as a rotating window). Leave kv_bits out."
        )
    if draft is None:
        return
    if model.tokenizer.get_vocab() != draft.tokenizer.get_vocab():
        raise _impossible(
            f"The draft model {draft.name} has another tokenizer than {model.name}. "
            "Take a draft model of its family."
        )
    for one in (model, draft):
        _check_trimming(one, row)
    if bits is not None and kv_bits.group_size(draft, bits) != group:
        raise _impossible(
            f"The KV cache of the draft model {draft.name} cannot be quantized to {bits} bits as that of "
            f"{model.name} is. Leave kv_bits or the draft model out."
        )


def _check_trimming(model: LoadedModel, row: Row) -> None:
    """Refuse a model whose cache cannot be cut back when a guess was wrong."""
    if model.trimmable:
        return
    if not model.window:
        raise _impossible(f"{model.name} cannot be used with a draft model: its cache cannot be cut back.")
    read, answer = len(row.prompt.tokens), row.prompt.max_tokens
    if read + answer + _GUESSED >= model.window:
        most = model.window - read - _GUESSED - 1
        remedy = f"Ask for at most {most} tokens (max_tokens)" if most > 0 else "Take a shorter prompt"
        raise _impossible(
            f"{model.name} has a rotating window of {model.window:,} tokens, which a draft model cannot go "
            f"past; the prompt has {read:,} and the answer may have {answer:,}. {remedy}, or leave the draft "
            "model out."
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


def _impossible(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)
