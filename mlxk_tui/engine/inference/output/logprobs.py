"""Converts log-probabilities to `TokenLogprob`, with the text and offset of each token and its top tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx

from mlxk_tui.engine.generation import TokenLogprob, TopToken
from mlxk_tui.engine.inference.detokenizing import ByteDecoder, TokenDecoder

TopLogprobs = Sequence[tuple[int, float]]
"""Token ids and log-probabilities, in descending order of probability."""


def top_logprobs(values: mx.array, count: int) -> list[list[tuple[int, float]]]:
    """Return the most likely tokens of each position, with their log-probabilities, in descending order.

    Args:
        values: log-probabilities, (positions, vocabulary), float32.
        count: number of tokens per position.
    """
    if not count:
        return [[] for _ in range(values.shape[0])]
    size = values.shape[-1]
    ids = mx.argpartition(-values, kth=min(count, size) - 1, axis=-1)[:, :count]
    top_values = mx.take_along_axis(values, ids, axis=-1)
    order = mx.argsort(-top_values, axis=-1)
    ids, top_values = mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(top_values, order, axis=-1)
    id_rows: Any = ids.tolist()
    value_rows: Any = top_values.tolist()
    return [list(zip(*row, strict=True)) for row in zip(id_rows, value_rows, strict=True)]


def token_logprob(
    decoder: TokenDecoder, token: int, logprob: float | None, top: TopLogprobs, offset: int
) -> TokenLogprob:
    """Return the `TokenLogprob` of a token.

    Args:
        decoder: decodes the tokens.
        token: the token id.
        logprob: its log-probability; None for the first token of a prompt.
        top: the most likely tokens at its position.
        offset: where its text begins, in characters from the beginning of the prompt.
    """
    text, raw = token_text(decoder, token)
    best = []
    for other, value in top:
        other_text, other_raw = token_text(decoder, other)
        best.append(TopToken(other, other_text, _finite(value), other_raw))
    own = None if logprob is None else _finite(logprob)
    return TokenLogprob(token, text, own, tuple(best), raw, offset)


def token_text(decoder: TokenDecoder, token: int) -> tuple[str, tuple[int, ...]]:
    """Return a token's text, and also its bytes if they are not valid UTF-8 by themselves."""
    data = decoder.token_bytes(token)
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), tuple(data)


def text_offsets(decoder: TokenDecoder, tokens: Sequence[int], text: str) -> list[int]:
    """Return where the text of each prompt token begins, in characters.

    Tokens that the tokenizer adds before the text, such as BOS, have no length.

    Args:
        decoder: decodes the tokens.
        tokens: token ids of the prompt.
        text: text of the prompt.
    """
    if decoder.byte_level:
        streaming = ByteDecoder(decoder, trim=decoder.trims_text)
        lengths = [len(streaming.push(token)) for token in tokens]
    else:
        lengths = [len(token_text(decoder, token)[0]) for token in tokens]
    begins = [0, *accumulate(lengths)]
    surplus = max(0, begins[-1] - len(text))
    return [min(max(0, begin - surplus), len(text)) for begin in begins[:-1]]


def _finite(logprob: float) -> float:
    """Return a number that JSON can represent: a masked token has a log-probability of minus infinity."""
    return max(logprob, -9999.0)
