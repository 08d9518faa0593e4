"""Constrained decoding: the place where a JSON schema becomes a logits processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from mlxk_tui.ops.errors import ErrorType, OpError


def make_processor(schema: str, tokenizer: Any, vocab_size: int) -> Callable[[mx.array, mx.array], mx.array]:
    """Return what masks the logits of tokens that `schema` does not allow next.

    Args:
        schema: a JSON schema as text.
        tokenizer: mlx-lm's wrapper.
        vocab_size: size of the logits.

    Raises:
        OpError: `feature_disabled`: it is not there yet.
    """
    del schema, tokenizer, vocab_size
    raise OpError(
        ErrorType.FEATURE_DISABLED, "Answers that follow a JSON schema are not supported yet. Leave it out."
    )
