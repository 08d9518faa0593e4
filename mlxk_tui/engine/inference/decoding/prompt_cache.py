"""Stores the KV caches of past prompts, so that the next turn of a chat prefills only its new tokens."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

_MAX_ENTRIES = 64
_MIN_TOKENS = 8
"""Minimum length of a prefix that is worth a copy."""

Tokens = npt.NDArray[np.int64]
"""Token ids, (tokens,)."""


@dataclass(frozen=True)
class _Entry:
    tokens: Tokens
    caches: list[Any]
    bytes: int
    trimmable: bool
    kind: Hashable


class PromptCache:
    """An LRU cache of the KV caches of one model. Different kinds (bits, draft model) do not mix.

    A cache that can be trimmed is used for any prompt that shares a prefix with it. One that cannot be
    trimmed (a rotating cache or a recurrent state) is used only for prompts that begin with all of its
    tokens.

    Args:
        max_bytes: maximum size of all entries.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        """Current size of all entries."""
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._next = 0

    def fetch(self, tokens: Sequence[int], kind: Hashable = None) -> tuple[list[Any] | None, int]:
        """Return a copy of the caches with the longest common prefix, trimmed to it.

        Args:
            tokens: token ids of the prompt.
            kind: the kind of cache that is required.

        Returns:
            The caches, one per layer, or None; and the number of tokens in them. That is less than the length
            of the prompt, because generation needs at least one token as input.
        """
        prompt = np.asarray(tokens, dtype=np.int64)
        best, best_key, best_length = None, -1, _MIN_TOKENS - 1
        for key, entry in self._entries.items():
            if entry.kind != kind:
                continue
            length = _common_prefix(entry.tokens, prompt[:-1])
            if not entry.trimmable and length < len(entry.tokens):
                continue
            if length > best_length:
                best, best_key, best_length = entry, key, length
        if best is None:
            return None, 0
        self._entries.move_to_end(best_key)
        caches = copy.deepcopy(best.caches)  # the arrays are shared until one copy is written to
        surplus = len(best.tokens) - best_length
        if surplus:
            trim_prompt_cache(caches, surplus)
        return caches, best_length

    def insert(self, tokens: Sequence[int], caches: list[Any], kind: Hashable = None) -> None:
        """Store the caches of exactly `tokens`. The caller must not write to them afterwards.

        Entries whose tokens are a prefix of `tokens` are dropped if the new entry can replace them, and the
        least recently used entries are dropped while the size exceeds its maximum.

        Args:
            tokens: token ids in the caches.
            caches: one per layer.
            kind: the kind of cache.
        """
        size = sum(cache.nbytes for cache in caches)
        if len(tokens) < _MIN_TOKENS or size > self._max_bytes:
            return
        mx.eval([cache.state for cache in caches])  # unevaluated slices would keep the whole batch in memory
        entry = _Entry(np.asarray(tokens, dtype=np.int64), caches, size, _trimmable(caches), kind)
        for key, old in list(self._entries.items()):
            if old.kind != kind:
                continue
            covered = _common_prefix(old.tokens, entry.tokens) == len(old.tokens)
            if covered and (entry.trimmable or len(old.tokens) == len(entry.tokens)):
                self._drop(key)
        self._entries[self._next] = entry
        self._next += 1
        self.bytes += size
        while self.bytes > self._max_bytes or len(self._entries) > _MAX_ENTRIES:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Drop all entries."""
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: int) -> None:
        self.bytes -= self._entries.pop(key).bytes


def _trimmable(caches: Sequence[Any]) -> bool:
    """Return whether caches can be trimmed; a chunked cache (llama4) that lost its beginning cannot."""
    flat = [inner for cache in caches for inner in getattr(cache, "caches", (cache,))]
    whole = all(getattr(cache, "start_position", 0) == 0 for cache in flat)
    return whole and bool(can_trim_prompt_cache(list(caches)))


def _common_prefix(left: Tokens, right: Tokens) -> int:
    """Return the length of the common prefix of two token sequences."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
