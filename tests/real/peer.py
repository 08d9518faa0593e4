"""mlx_lm as a process that runs one job per line of stdin, to compare our answers with.

Run as `python -m tests.support.with_blas tests.real.peer`, with the BLAS library of our worker: a comparison
token by token needs the same matrix products.
"""

# ruff: noqa: T201 - what it prints is its result
# mlx-lm is not typed:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
import sys
from typing import Any

import mlx.core as mx
from mlx_lm import load, stream_generate
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache


class Peer:
    """The last models used, and the KV cache of the last answer."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._cache: list[Any] = []
        self._held: list[int] = []

    def _load(self, folder: str) -> tuple[Any, Any]:
        if folder not in self._models:
            if len(self._models) > 1:
                self._models.clear()
            self._models[folder] = load(folder)[:2]
        model, tokenizer = self._models[folder]
        return model, tokenizer

    def encode(self, model: str, messages: list[dict[str, str]] | None = None, text: str = "") -> list[int]:
        """Return the token ids of a conversation or a text."""
        tokenizer: Any = self._load(model)[1]
        if messages is None:
            return list(tokenizer.encode(text))
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def decode(self, model: str, tokens: list[int]) -> str:
        """Return the tokenizer's text of tokens."""
        return str(self._load(model)[1].decode(tokens))

    def generate(
        self,
        model: str,
        prompt: list[int],
        max_tokens: int,
        kv_bits: int | None = None,
        draft: str | None = None,
        goes_on: bool = False,
    ) -> dict[str, Any]:
        """Generate with greedy decoding.

        Args:
            model: its folder.
            prompt: token ids.
            max_tokens: maximum number of tokens.
            kv_bits: bits of the KV cache, quantized from the first position on.
            draft: folder of a draft model.
            goes_on: reuse the matching part of the last answer's cache.
        """
        loaded, tokenizer = self._load(model)
        guessing = self._load(draft)[0] if draft is not None else None
        same = 0
        if goes_on:
            for held, wanted in zip(self._held, prompt[:-1], strict=False):
                if held != wanted:
                    break
                same += 1
            trim_prompt_cache(self._cache, self._cache[0].offset - same)
        else:
            self._cache = make_prompt_cache(loaded)
            if guessing is not None:
                self._cache += make_prompt_cache(guessing)
        more: dict[str, Any] = {} if kv_bits is None else {"kv_bits": kv_bits, "quantized_kv_start": 0}
        steps = list(
            stream_generate(
                loaded,
                tokenizer,
                prompt[same:],
                max_tokens=max_tokens,
                draft_model=guessing,
                prompt_cache=self._cache,
                **more,
            )
        )
        tokens = [step.token for step in steps]
        self._held = prompt + tokens
        return {
            "tokens": tokens,
            "text": "".join(step.text for step in steps),
            "logprobs": [step.logprobs[step.token].item() for step in steps],
            "same": same,
        }

    def score(self, model: str, prompt: list[int]) -> list[float]:
        """Return the log-probabilities of a prompt's tokens except the first, computed in one pass."""
        logits = self._load(model)[0](mx.array(prompt)[None])[0].astype(mx.float32)
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        picked: Any = mx.take_along_axis(logprobs[:-1], mx.array(prompt[1:])[:, None], axis=-1)[:, 0].tolist()
        return list(picked)


def main() -> None:
    """Run the jobs on stdin until its end."""
    peer = Peer()
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(getattr(peer, job.pop("do"))(**job)), flush=True)


if __name__ == "__main__":
    main()
