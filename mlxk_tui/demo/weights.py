"""Weight files of the sample: real headers followed by sparse zeros, with precomputed checksums.

A file has the size of the real model's file, but takes only a few kilobytes of disk space. Its checksum is
that of its actual bytes, so `--verify` succeeds. Hashing gigabytes of zeros at every start would take
minutes, so `scripts/demo_checksums.py` did it once.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.demo.checksums import CHECKSUMS

SHARD_BYTES = 5 << 30
"""Maximum size of a shard, as in mlx-lm."""

_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}
_MAX_HASHED_BYTES = 1 << 20
_GGUF_MAGIC_AND_VERSION = b"GGUF\x03\x00\x00\x00"
_GGUF_UINT32, _GGUF_STRING = 4, 8
_GGUF_ALIGNMENT = 32


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model."""

    name: str
    """The full name, or the name without `.weight` if `quantizable`."""
    shape: tuple[int, ...]
    quantizable: bool = False
    dtype: str = "BF16"


@dataclass(frozen=True)
class Payload:
    """The content of a sparse file: a head, followed by zeros."""

    head: bytes
    size: int
    """Size in bytes, including the head."""

    @property
    def key(self) -> str:
        """Identifies the content: the size and a hash of the head."""
        return f"{self.size}-{hashlib.sha256(self.head).hexdigest()[:16]}"

    @property
    def sha256(self) -> str:
        """The SHA-256 checksum, precomputed for large files.

        Raises:
            KeyError: the checksum of a large file isn't in `CHECKSUMS`; run `scripts/demo_checksums.py`.
        """
        if self.size <= _MAX_HASHED_BYTES:
            return self.compute_sha256()
        return CHECKSUMS[self.key]

    def compute_sha256(self) -> str:
        """Compute the SHA-256 checksum; this takes about a second per gigabyte."""
        digest = hashlib.sha256(self.head)
        zeros = bytes(_MAX_HASHED_BYTES)
        remaining = self.size - len(self.head)
        while remaining > 0:
            digest.update(zeros[:remaining] if remaining < len(zeros) else zeros)
            remaining -= len(zeros)
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write a sparse file: the zeros take no disk space."""
        with path.open("wb") as file:
            file.write(self.head)
            file.truncate(self.size)


def quantize(tensors: Iterable[Tensor], bits: int | None, group: int = 64) -> list[Tensor]:
    """Return the stored tensors of an MLX model: packed weights, scales and biases if quantized."""
    stored: list[Tensor] = []
    for tensor in tensors:
        if not tensor.quantizable:
            stored.append(tensor)
        elif bits is None or tensor.shape[-1] % group:
            stored.append(Tensor(f"{tensor.name}.weight", tensor.shape, dtype=tensor.dtype))
        else:
            *rows, columns = tensor.shape
            packed = (*rows, columns * bits // 32)
            groups = (*rows, columns // group)
            stored.append(Tensor(f"{tensor.name}.weight", packed, dtype="U32"))
            stored.append(Tensor(f"{tensor.name}.scales", groups, dtype=tensor.dtype))
            stored.append(Tensor(f"{tensor.name}.biases", groups, dtype=tensor.dtype))
    return stored


def safetensors(tensors: Sequence[Tensor], metadata: str = "mlx") -> Payload:
    """Return a safetensors file: the length of the header in 8 bytes, the JSON header, the data.

    See https://huggingface.co/docs/safetensors.
    """
    header: dict[str, object] = {"__metadata__": {"format": metadata}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + _size(tensor)
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    return Payload(head, len(head) + end)


def shards(tensors: Sequence[Tensor], limit: int = SHARD_BYTES) -> dict[str, Payload]:
    """Return safetensors files by name, with at most `limit` bytes of tensors each."""
    groups: list[list[Tensor]] = [[]]
    total = 0
    for tensor in tensors:
        size = _size(tensor)
        if groups[-1] and total + size > limit:
            groups.append([])
            total = 0
        groups[-1].append(tensor)
        total += size
    if len(groups) == 1:
        return {"model.safetensors": safetensors(groups[0])}
    return {
        f"model-{number:05}-of-{len(groups):05}.safetensors": safetensors(group)
        for number, group in enumerate(groups, 1)
    }


def index(files: dict[str, Payload]) -> bytes:
    """Return `model.safetensors.index.json` for these files."""
    weight_map: dict[str, str] = {}
    total = 0
    for name, payload in files.items():
        header = json.loads(payload.head[8:])
        weight_map.update(dict.fromkeys((key for key in header if key != "__metadata__"), name))
        total += payload.size - len(payload.head)
    document = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(document, indent=4).encode()


def gguf(tensors: Sequence[Tensor], strings: dict[str, str], numbers: dict[str, int]) -> Payload:
    """Return a GGUF file (version 3) with all tensors as Q8_0 (type 8) or F32 (type 0).

    See https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    """
    parts = [_GGUF_MAGIC_AND_VERSION, struct.pack("<QQ", len(tensors), len(strings) + len(numbers))]
    for key, text in strings.items():
        parts += [_gguf_string(key), struct.pack("<I", _GGUF_STRING), _gguf_string(text)]
    for key, number in numbers.items():
        parts += [_gguf_string(key), struct.pack("<II", _GGUF_UINT32, number)]
    offset = 0
    for tensor in tensors:
        count = math.prod(tensor.shape)
        packed = tensor.quantizable
        parts += [
            _gguf_string(tensor.name + (".weight" if packed else "")),
            struct.pack("<I", len(tensor.shape)),
            struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape)),
            struct.pack("<IQ", 8 if packed else 0, offset),
        ]
        size = count // 32 * 34 if packed else count * 4
        offset += size + -size % _GGUF_ALIGNMENT
    head = b"".join(parts)
    head += bytes(-len(head) % _GGUF_ALIGNMENT)
    return Payload(head, len(head) + offset)


def _gguf_string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _size(tensor: Tensor) -> int:
    return math.prod(tensor.shape) * _BYTES[tensor.dtype]
