"""Embeddings on the client's side: results, checks, and splitting texts into commands of bounded size."""

from __future__ import annotations

import array
import base64
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.engine.protocol import Embedded
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

if TYPE_CHECKING:
    from mlxk_tui.engine.models import RunnableModel

_MAX_TEXTS = 64
"""Texts per command."""
_MAX_CHARACTERS = 256 * 1024
"""Characters per command, unless a single text has more."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of a list of texts."""

    vectors: list[list[float]]
    """One per text, in order, each of unit length."""
    tokens: int
    """Tokens of all texts, including special tokens."""


def check_texts(model: RunnableModel, texts: Sequence[str]) -> None:
    """Check that the model is an embedding model and that there are texts.

    Raises:
        OpError: `validation_error`.
    """
    if not model.embedding:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{model.name} is not an embedding model.",
            remedy=Remedy.CHOOSE_EMBEDDING_MODEL,
        )
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise OpError(ErrorType.VALIDATION_ERROR, "There is no text to embed.")


def split_texts(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield groups of at most 64 texts and 256 Ki characters; the caller can cancel between two groups."""
    part: list[str] = []
    size = 0
    for text in texts:
        if part and (len(part) == _MAX_TEXTS or size + len(text) > _MAX_CHARACTERS):
            yield tuple(part)
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield tuple(part)


def decode_vectors(reply: Embedded) -> list[list[float]]:
    """Decode the vectors of a reply, (texts, size), from Base64."""
    numbers = array.array("f")
    numbers.frombytes(base64.b64decode(reply.data))
    if sys.byteorder == "big":
        numbers.byteswap()
    return [numbers[at : at + reply.size].tolist() for at in range(0, len(numbers), reply.size)]
