"""Computes embeddings: hidden states of a decoder model, pooled as its sentence-transformers files specify.

Texts are padded on the right, which does not affect a causal model; long texts are processed in chunks with
KV caches. Before a model's first texts a trial compares both with a text alone. With mlx-lm 0.32.2 they
differ for phi3small, which attends to the padding, and for gemma3n, whose layers share keys only through
caches. A job runs one step at a time, so that running generations continue between its steps.
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

from mlxk_tui.engine.inference.decoding.chunk_sizer import ChunkSizer
from mlxk_tui.engine.inference.heartbeat import DEFAULT_STEP_S
from mlxk_tui.engine.inference.weights.loading import LoadedModel
from mlxk_tui.engine.protocol import Embedded
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

Pooling = Literal["lasttoken", "mean", "cls"]

_MAX_ROWS = 32
_FLOAT32_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.2
"""Maximum distance of two hidden states of a token, scaled to unit length, in float32 and in 16 bits.

In float32 it is at most 0.00001 for the correct architectures of `make families`, and 0.5 for gemma3n.
"""
_MAX_JSON_BYTES = 1 << 20
_MODES: dict[str, Pooling] = {
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}


class EmbeddingJob:
    """Computes the embeddings of a list of texts, step by step.

    Args:
        id: id of the command.
        model: the model.
        texts: token ids of each text, none empty.
        chunk_sizer: chooses the number of tokens per step; shared by all jobs of a model.

    Raises:
        OpError: `model_not_runnable`: the model does not support this, or its results are wrong.
    """

    def __init__(
        self,
        id: int,  # noqa: A002 - the name in the protocol
        model: LoadedModel,
        texts: Sequence[Sequence[int]],
        chunk_sizer: ChunkSizer,
    ) -> None:
        self.id = id
        self._model = model
        self._backbone = _find_backbone(model)
        self._pooling = find_pooling(model)
        if not model.embedding_checked:
            _check_padding_and_chunks(model, self._backbone)
            model.embedding_checked = True
        self._texts = texts
        self._chunk_sizer = chunk_sizer
        # By length, so that batches need little padding. The shortest texts are at the end and popped first.
        self._waiting = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        self._vectors: dict[int, npt.NDArray[np.float32]] = {}
        self._long: _LongText | None = None

    @property
    def done(self) -> bool:
        """Whether all vectors have been computed."""
        return not self._waiting and self._long is None

    def expected_s(self, *, shared: bool) -> float:
        """Return the expected duration of the next step, in seconds."""
        tokens = self._chunk_sizer.next_size(shared=shared, context=self._context)
        return self._chunk_sizer.expected_s(tokens, self._context) or DEFAULT_STEP_S

    @property
    def _context(self) -> int:
        return self._long.done if self._long is not None else 0

    def step(self, *, shared: bool) -> None:
        """Process a few texts, or a chunk of a long one.

        Args:
            shared: other requests wait for their next step.
        """
        context = self._context
        chunk = self._chunk_sizer.next_size(shared=shared, context=context)
        with self._chunk_sizer.measure() as measurement:
            measurement.context = context
            if self._long is None and len(self._texts[self._waiting[-1]]) > chunk:
                self._long = _LongText(self._waiting.pop(), self._model)
            if self._long is not None:
                measurement.tokens = self._embed_chunk(self._long, chunk)
            else:
                measurement.tokens = self._embed_batch(chunk)

    def _embed_batch(self, chunk: int) -> int:
        """Embed as many whole texts as fit into `chunk` tokens; return their tokens, including padding."""
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

    def _embed_chunk(self, long: _LongText, chunk: int) -> int:
        """Process the next chunk of a long text and return its number of tokens."""
        text = self._texts[long.at]
        part = text[long.done : long.done + chunk]
        hidden = self._backbone(mx.array([list(part)]), cache=long.caches)[0].astype(mx.float32)
        if self._pooling == "mean":
            state = hidden.sum(axis=0) / len(text)
            long.state = state if long.state is None else long.state + state
        elif self._pooling == "lasttoken" or long.state is None:
            long.state = hidden[-1] if self._pooling == "lasttoken" else hidden[0]
        mx.eval(long.state, [cache.state for cache in long.caches])
        long.done += len(part)
        if long.done == len(text):
            self._vectors[long.at] = np.asarray(long.state)
            self._long = None
            mx.clear_cache()
        return len(part)

    def reply(self) -> Embedded:
        """Return the reply: vectors of unit length, (texts, size), float32, in the order of the texts."""
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
    """A text that is processed in several steps."""

    def __init__(self, at: int, model: LoadedModel) -> None:
        self.at = at
        """Index of the text."""
        self.done = 0
        """Tokens processed so far."""
        self.caches: list[Any] = make_prompt_cache(model.model)
        self.state: mx.array | None = None
        """The pooled hidden state so far, (size,)."""


def find_pooling(model: LoadedModel) -> Pooling:
    """Return the pooling mode in a model's sentence-transformers files, by default `lasttoken`.

    Raises:
        OpError: `model_not_runnable`: the files require something that mlx-lm's model does not support.
    """
    config = _json(model.folder / "config.json")
    inner = config.get("text_config") if isinstance(config, dict) else None
    for place in (config, inner):
        if isinstance(place, dict) and (
            place.get("use_bidirectional_attention") or place.get("is_causal") is False
        ):
            raise _unsupported(model, "it uses bidirectional attention, which mlx-lm does not support")
    modules = _json(model.folder / "modules.json")
    for module in modules if isinstance(modules, list) else ():
        kind = str(module.get("type", "")).rsplit(".", 1)[-1] if isinstance(module, dict) else ""
        if kind == "Pooling":
            return _read_pooling(model, str(module.get("path", "")))
        if kind not in ("Transformer", "Normalize"):
            raise _unsupported(model, f"its module {kind[:40] or 'without a name'} is not supported")
    return "lasttoken"


def _read_pooling(model: LoadedModel, path: str) -> Pooling:
    parts = PurePosixPath(path).parts
    if len(parts) != 1 or parts[0] in ("..", "/"):
        raise _unsupported(
            model, "the path of its pooling module in modules.json is not a folder of the repo"
        )
    config = _json(model.folder / parts[0] / "config.json")
    if not isinstance(config, dict):
        return "lasttoken"
    named = config.get("pooling_mode")
    keys = {f"pooling_mode_{named}", f"pooling_mode_{named}_tokens", f"pooling_mode_{named}_token"}
    enabled = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    found = {_MODES.get(key) for key in enabled} or {_MODES[key] for key in keys if key in _MODES}
    if not found and named is None:
        return "lasttoken"
    pooling = next(iter(found)) if len(found) == 1 else None
    if pooling is None:
        raise _unsupported(model, "its pooling mode is not supported")
    return pooling


def _find_backbone(model: LoadedModel) -> Any:
    """Return the module whose output is the hidden states, (rows, tokens, size)."""
    outer = getattr(model.model, "language_model", model.model)
    backbone = getattr(outer, "model", None)
    if backbone is None or not callable(backbone):
        raise _unsupported(model, "mlx-lm does not provide its hidden states")
    return backbone


def _check_padding_and_chunks(model: LoadedModel, backbone: Any) -> None:
    """Check that padded texts and texts in chunks have the same hidden states as a text alone.

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
        raise _unsupported(model, f"mlx-lm's model fails ({type(error).__name__})") from error
    if apart > (_FLOAT32_TOLERANCE if together.dtype == mx.float32 else _HALF_TOLERANCE):
        raise _unsupported(model, "mlx-lm's model returns different vectors for batched or chunked texts")


def _distance(some: mx.array, other: mx.array) -> float:
    """Return the largest distance of corresponding hidden states, scaled to unit length: 0 to 2.

    Args:
        some: hidden states, (tokens, size).
        other: hidden states of the same shape.
    """
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


def _unsupported(model: LoadedModel, reason: str) -> OpError:
    return OpError(
        ErrorType.MODEL_NOT_RUNNABLE,
        f"{model.name} cannot compute embeddings here: {reason}.",
        remedy=Remedy.CHOOSE_EMBEDDING_MODEL,
    )
