"""Log-probabilities of tokens as the protocol tells them: by name, with the likeliest others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx

from mlxk_tui.engine.generation import TokenLogprob, TopToken
from mlxk_tui.engine.inference.detokenizing import ByteDecoder, TokenTexts

Likely = Sequence[tuple[int, float]]
"""Ids and log-probabilities, the likeliest first."""


def likeliest(values: mx.array, count: int) -> list[list[tuple[int, float]]]:
    """Return the likeliest tokens of each position.

    Args:
        values: log-probabilities, (positions, vocabulary).
        count: how many of each.
    """
    if not count:
        return [[] for _ in range(values.shape[0])]
    size = values.shape[-1]
    ids = mx.argpartition(-values, kth=min(count, size) - 1, axis=-1)[:, :count]
    theirs = mx.take_along_axis(values, ids, axis=-1)
    order = mx.argsort(-theirs, axis=-1)
    ids, theirs = mx.take_along_axis(ids, order, axis=-1), mx.take_along_axis(theirs, order, axis=-1)
    of_ids: Any = ids.tolist()
    of_values: Any = theirs.tolist()
    return [list(zip(*row, strict=True)) for row in zip(of_ids, of_values, strict=True)]


def entry(texts: TokenTexts, token: int, logprob: float | None, top: Likely, offset: int) -> TokenLogprob:
    """Return what is told of a token; `offset` counts characters from the prompt's beginning to its text."""
    text, raw = shown(texts, token)
    best = []
    for one, value in top:
        its_text, its_raw = shown(texts, one)
        best.append(TopToken(one, its_text, _finite(value), its_raw))
    own = None if logprob is None else _finite(logprob)
    return TokenLogprob(token, text, own, tuple(best), raw, offset)


def shown(texts: TokenTexts, token: int) -> tuple[str, tuple[int, ...]]:
    """Return a token's text, and its bytes where they are no text by themselves."""
    data = texts.bytes_of(token)
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), tuple(data)


def offsets(texts: TokenTexts, tokens: Sequence[int], text: str) -> list[int]:
    """Return where each token of a prompt begins in its text, in characters.

    Tokens that a tokenizer puts before a given text, such as a begin of sequence, take no room in it.
    """
    if texts.exact:
        decoder = ByteDecoder(texts, trim=texts.trims_text)
        lengths = [len(decoder.push(token)) for token in tokens]
    else:
        lengths = [len(shown(texts, token)[0]) for token in tokens]
    begins = [0, *accumulate(lengths)]
    surplus = max(0, begins[-1] - len(text))
    return [min(max(0, begin - surplus), len(text)) for begin in begins[:-1]]


def _finite(logprob: float) -> float:
    """Return a number that JSON can hold: a masked token has a log-probability of minus infinity."""
    return max(logprob, -9999.0)
