"""Turns texts into vectors: hidden states of a decoder, pooled as its sentence-transformers files say.

Texts are padded on the right, which a causal model does not see; long ones are read in pieces, with caches.
Before a model's first texts it is tried whether both give what a text alone does. With mlx-lm 0.32.2 they do
not for phi3small, which sees the padding, and gemma3n, whose layers share keys only through caches. A job
takes one step at a time, so that running generations keep flowing between its steps.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx_lm.models.cache import make_prompt_cache

from mlxk_tui.engine.inference.decoding.pace import Pace
from mlxk_tui.engine.inference.vitals import UNKNOWN_S
from mlxk_tui.engine.inference.weights.loading import LoadedModel
from mlxk_tui.engine.protocol import Embedded
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

Pooling = Literal["lasttoken", "mean", "cls"]

_MAX_ROWS = 32
_EXACT_TOLERANCE, _TOLERANCE = 1e-3, 0.2
"""How far the states of a token may be apart, as vectors of length one, in 32 and in 16 bits.

In 32 bits they are at most 0.00001 with the innocent architectures of `make families`, 0.5 with gemma3n.
"""
_MAX_JSON_BYTES = 1 << 20
_MODES: dict[str, Pooling] = {
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}


class EmbeddingJob:
    """Some texts on their way to vectors.

    Args:
        id: the command's.
        model: what reads them.
        texts: the tokens of each, none empty.
        pace: how much a step may take; shared by all jobs of a model.

    Raises:
        OpError: `model_not_runnable`: the model does not work this way, or not rightly.
    """

    def __init__(self, id: int, model: LoadedModel, texts: Sequence[Sequence[int]], pace: Pace) -> None:  # noqa: A002
        self.id = id
        self._model = model
        self._backbone = _backbone_of(model)
        self._pooling = pooling_of(model)
        if not model.reads_texts:
            _try_reading(model, self._backbone)
            model.reads_texts = True
        self._texts = texts
        self._pace = pace
        # Short ones together with short ones: little padding. The longest come last off the stack.
        self._waiting = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        self._vectors: dict[int, npt.NDArray[np.float32]] = {}
        self._long: _LongText | None = None

    @property
    def done(self) -> bool:
        """Whether all texts have been read."""
        return not self._waiting and self._long is None

    def expected_s(self, *, shared: bool) -> float:
        """Return how long the next step should take, in seconds, as far as it is known."""
        tokens = self._pace.tokens(shared=shared, context=self._context)
        return self._pace.expected_s(tokens, self._context) or UNKNOWN_S

    @property
    def _context(self) -> int:
        return self._long.read if self._long is not None else 0

    def step(self, *, shared: bool) -> None:
        """Read a few texts, or a part of a long one.

        Args:
            shared: others wait for their turn.
        """
        context = self._context
        chunk = self._pace.tokens(shared=shared, context=context)
        with self._pace.measured() as read:
            read.context = context
            if self._long is None and len(self._texts[self._waiting[-1]]) > chunk:
                self._long = _LongText(self._waiting.pop(), self._model)
            if self._long is not None:
                read.tokens = self._read_on(self._long, chunk)
            else:
                read.tokens = self._read_some(chunk)

    def _read_some(self, chunk: int) -> int:
        """Read as many whole texts as fit, and return how many tokens they had, padding included."""
        taken = [self._waiting.pop()]
        longest = len(self._texts[taken[0]])
        while self._waiting and len(taken) < _MAX_ROWS:
            longest = max(longest, len(self._texts[self._waiting[-1]]))
            if longest * (len(taken) + 1) > chunk:
                break
            taken.append(self._waiting.pop())
        texts = [self._texts[at] for at in taken]
        longest = max(map(len, texts))
        padded = [[*text, *[0] * (longest - len(text))] for text in texts]
        hidden = self._backbone(mx.array(padded), cache=None).astype(mx.float32)
        lengths = mx.array([len(text) for text in texts])
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        elif self._pooling == "lasttoken":
            pooled = mx.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
        else:
            real = mx.arange(longest)[None] < lengths[:, None]
            pooled = mx.where(real[..., None], hidden, 0).sum(axis=1) / lengths[:, None]
        for at, vector in zip(taken, np.asarray(pooled), strict=True):
            self._vectors[at] = vector
        return longest * len(taken)

    def _read_on(self, long: _LongText, chunk: int) -> int:
        """Read the next part of a long text and return its number of tokens."""
        text = self._texts[long.at]
        part = text[long.read : long.read + chunk]
        hidden = self._backbone(mx.array([list(part)]), cache=long.caches)[0].astype(mx.float32)
        if self._pooling == "mean":
            state = hidden.sum(axis=0) / len(text)
            long.state = state if long.state is None else long.state + state
        elif self._pooling == "lasttoken" or long.state is None:
            long.state = hidden[-1] if self._pooling == "lasttoken" else hidden[0]
        mx.eval(long.state, [cache.state for cache in long.caches])
        long.read += len(part)
        if long.read == len(text):
            self._vectors[long.at] = np.asarray(long.state)
            self._long = None
            mx.clear_cache()
        return len(part)

    def answer(self) -> Embedded:
        """Return the vectors, each of length one, in the order of the texts."""
        vectors = np.stack([self._vectors[at] for at in range(len(self._texts))]).astype("<f4")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.nan_to_num(vectors / np.maximum(lengths, 1e-12))
        return Embedded(
            id=self.id,
            size=int(vectors.shape[1]),
            data=base64.b64encode(vectors.astype("<f4").tobytes()).decode("ascii"),
            tokens=sum(map(len, self._texts)),
        )


class _LongText:
    """A text that is read in several steps."""

    def __init__(self, at: int, model: LoadedModel) -> None:
        self.at = at
        self.read = 0
        self.caches: list[Any] = make_prompt_cache(model.model)
        self.state: mx.array | None = None


def pooling_of(model: LoadedModel) -> Pooling:
    """Return how the hidden states of a text become its vector; the last one where nothing is said.

    Raises:
        OpError: `model_not_runnable`: it is said, and mlx-lm's model cannot do so.
    """
    config = _json(model.folder / "config.json")
    inner = config.get("text_config") if isinstance(config, dict) else None
    for place in (config, inner):
        if isinstance(place, dict) and (
            place.get("use_bidirectional_attention") or place.get("is_causal") is False
        ):
            raise _impossible(model, "it looks at a text in both directions, which mlx-lm does not")
    modules = _json(model.folder / "modules.json")
    for module in modules if isinstance(modules, list) else ():
        kind = str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else ""
        if kind == "Pooling":
            return _pooling_in(model, str(module.get("path", "")))
        if kind not in ("Transformer", "Normalize"):
            raise _impossible(model, f"a part of it ({kind[:40] or 'unnamed'}) is not supported")
    return "lasttoken"


def _pooling_in(model: LoadedModel, path: str) -> Pooling:
    parts = PurePosixPath(path).parts
    if len(parts) != 1 or parts[0] in ("..", "/"):
        raise _impossible(model, "its modules.json names no folder of its own")
    config = _json(model.folder / parts[0] / "config.json")
    if not isinstance(config, dict):
        return "lasttoken"
    named = config.get("pooling_mode")
    wanted = {f"pooling_mode_{named}", f"pooling_mode_{named}_tokens", f"pooling_mode_{named}_token"}
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    found = {_MODES.get(key) for key in on} or {_MODES[key] for key in wanted if key in _MODES}
    if not found and named is None:
        return "lasttoken"
    pooling = next(iter(found)) if len(found) == 1 else None
    if pooling is None:
        raise _impossible(model, "its way of pooling is not supported")
    return pooling


def _backbone_of(model: LoadedModel) -> Any:
    """Return the part of a model whose output is hidden states, (rows, tokens, size)."""
    outer = getattr(model.model, "language_model", model.model)
    backbone = getattr(outer, "model", None)
    if backbone is None or not callable(backbone):
        raise _impossible(model, "mlx-lm does not give access to its hidden states")
    return backbone


def _try_reading(model: LoadedModel, backbone: Any) -> None:
    """See whether texts read together, and one read in pieces, get the states that they get alone.

    Raises:
        OpError: `model_not_runnable`: they do not.
    """
    size = model.vocab_size
    long, short = ([(3 + 7 * at) * size // 50 for at in order] for order in ((0, 1, 2, 3, 4, 5), (6, 2, 4)))
    caches: list[Any] = make_prompt_cache(model.model)
    try:
        alone = backbone(mx.array([short]), cache=None)[0]
        together = backbone(mx.array([long, [*short, 0, 0, 0]]), cache=None)
        pieces = [backbone(mx.array([part]), cache=caches)[0] for part in (long[:3], long[3:])]
        apart = max(
            _distance(alone, together[1, : len(short)]), _distance(mx.concatenate(pieces), together[0])
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _impossible(model, f"mlx-lm's model fails ({type(error).__name__})") from error
    if apart > (_EXACT_TOLERANCE if together.dtype == mx.float32 else _TOLERANCE):
        raise _impossible(model, "mlx-lm's model gives a text other vectors beside other texts or in pieces")


def _distance(some: mx.array, other: mx.array) -> float:
    """Return the largest distance of two states of a token, made vectors of length one: 0 to 2."""
    one, two = (each.astype(mx.float32) for each in (some, other))
    one, two = (each / mx.maximum(mx.linalg.norm(each, axis=-1, keepdims=True), 1e-12) for each in (one, two))
    largest: Any = mx.max(mx.linalg.norm(one - two, axis=-1)).item()
    return float(largest)


def _json(path: Path) -> object:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _impossible(model: LoadedModel, why: str) -> OpError:
    return OpError(
        ErrorType.MODEL_NOT_RUNNABLE,
        f"{model.name} cannot make embeddings here: {why}.",
        remedy=Remedy.CHOOSE_EMBEDDING_MODEL,
    )
