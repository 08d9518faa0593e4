"""Keeps the KV caches of past prompts, so that the next turn of a chat prefills only what is new."""

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
"""A shorter prefix is not worth the copy."""

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Entry:
    tokens: Tokens
    caches: list[Any]
    bytes: int
    trimmable: bool
    kind: Hashable


class PromptCache:
    """Least recently used caches of one model, bounded in bytes; kinds (bits, draft) are kept apart.

    A cache that can be cut back serves every prompt that begins as it does; one that cannot (a
    rotating or recurrent state) serves only prompts that begin with all of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        """What is kept."""
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._next = 0

    def fetch(self, tokens: Sequence[int], kind: Hashable = None) -> tuple[list[Any] | None, int]:
        """Return a copy of the caches that hold the longest prefix, and that prefix's length.

        At least one token is always left over: a generation has to begin with one.
        """
        wanted = np.asarray(tokens, dtype=np.int64)
        best, best_key, best_length = None, -1, _MIN_TOKENS - 1
        for key, entry in self._entries.items():
            if entry.kind != kind:
                continue
            length = _common(entry.tokens, wanted[:-1])
            if not entry.trimmable and length < len(entry.tokens):
                continue
            if length > best_length:
                best, best_key, best_length = entry, key, length
        if best is None:
            return None, 0
        self._entries.move_to_end(best_key)
        caches = copy.deepcopy(best.caches)  # arrays are shared until one side writes
        surplus = len(best.tokens) - best_length
        if surplus:
            trim_prompt_cache(caches, surplus)
        return caches, best_length

    def insert(self, tokens: Sequence[int], caches: list[Any], kind: Hashable = None) -> None:
        """Keep caches that hold exactly `tokens`; they must not be written to afterwards."""
        size = sum(cache.nbytes for cache in caches)
        if len(tokens) < _MIN_TOKENS or size > self._max_bytes:
            return
        mx.eval([cache.state for cache in caches])  # lazily they would hold the whole batch they come from
        entry = _Entry(np.asarray(tokens, dtype=np.int64), caches, size, _trimmable(caches), kind)
        for key, old in list(self._entries.items()):
            if old.kind != kind:
                continue
            covered = _common(old.tokens, entry.tokens) == len(old.tokens)
            if covered and (entry.trimmable or len(old.tokens) == len(entry.tokens)):
                self._drop(key)
        self._entries[self._next] = entry
        self._next += 1
        self.bytes += size
        while self.bytes > self._max_bytes or len(self._entries) > _MAX_ENTRIES:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Free everything."""
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: int) -> None:
        self.bytes -= self._entries.pop(key).bytes


def _trimmable(caches: Sequence[Any]) -> bool:
    """Tell whether caches can be cut back; one in chunks (llama4) that has lost its front cannot."""
    flat = [inner for cache in caches for inner in getattr(cache, "caches", (cache,))]
    whole = all(getattr(cache, "start_position", 0) == 0 for cache in flat)
    return whole and bool(can_trim_prompt_cache(list(caches)))


def _common(left: Tokens, right: Tokens) -> int:
    """Return how many tokens two sequences begin with in common."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
