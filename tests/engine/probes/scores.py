"""Prints the log-probabilities of a prompt's tokens, computed in one pass.

`python -m tests.engine.probes.scores FOLDER ID…`
"""

# ruff: noqa: T201 - what a probe prints is its result
# mlx-lm is not typed:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import sys
from typing import Any

import mlx.core as mx
from mlx_lm import load


def main(folder: str, tokens: list[int]) -> Any:
    """Return the log-probabilities of all tokens except the first."""
    model: Any = load(folder)[0]
    logits = model(mx.array(tokens)[None])[0]
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return mx.take_along_axis(logprobs[:-1], mx.array(tokens[1:])[:, None], axis=-1)[:, 0].tolist()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], [int(token) for token in sys.argv[2:]])))
