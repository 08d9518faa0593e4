"""Embeddings as their users see them, and how many texts go to the worker at a time."""

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
    from mlxk_tui.engine.models import Runnable

_MAX_TEXTS = 64
_MAX_CHARACTERS = 256 * 1024


@dataclass(frozen=True)
class Embeddings:
    """Vectors of some texts."""

    vectors: list[list[float]]
    """One for each text, in their order; each of length one."""
    tokens: int
    """Of all texts, special ones included."""


def check(model: Runnable, texts: Sequence[str]) -> None:
    """Refuse what cannot be embedded.

    Raises:
        OpError: `validation_error`.
    """
    if not model.embedding:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{model.name} is no embedding model.",
            remedy=Remedy.CHOOSE_EMBEDDING_MODEL,
        )
    if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
        raise OpError(ErrorType.VALIDATION_ERROR, "There is no text to embed.")


def parts_of(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield texts in groups of bounded size, between which the work can be given up."""
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


def vectors_of(said: Embedded) -> list[list[float]]:
    """Return the vectors of an answer."""
    numbers = array.array("f")
    numbers.frombytes(base64.b64decode(said.data))
    if sys.byteorder == "big":
        numbers.byteswap()
    return [numbers[at : at + said.size].tolist() for at in range(0, len(numbers), said.size)]
