"""Reads the settings of a GGUF file, and its tensors in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np


class GgufFile:
    """A memory-mapped GGUF file."""

    def __init__(self, path: Path) -> None:
        self._reader = gguf.GGUFReader(path)

    def setting(self, name: str) -> Any:
        """Return a setting of the file as a Python value.

        Raises:
            KeyError: the file does not have this setting.
        """
        return self._reader.fields[name].contents()

    def tensors(self) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
        """Yield names and values in row-major order; matrices have the shape (output, input)."""
        for tensor in self._reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            yield tensor.name, np.ascontiguousarray(values, dtype=np.float32)


def named(name: str, renamed: dict[str, str]) -> str:
    """Return the Hugging Face name of a tensor.

    Args:
        name: the name in GGUF, such as `blk.3.attn_q.weight`.
        renamed: GGUF's stems -> the part after `model.layers.3.` (or `model.`).
    """
    if name.startswith("blk."):
        _, layer, stem, kind = name.split(".")
        return f"model.layers.{layer}.{renamed[stem]}.{kind}"
    stem, kind = name.rsplit(".", 1)
    return f"model.{renamed[stem]}.{kind}"


def array(values: np.ndarray[Any, np.dtype[np.float32]]) -> mx.array:
    """Return the values as an MLX array."""
    return mx.array(values)
