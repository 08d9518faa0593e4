"""Weight files of the sample: true headers, sparse zeros behind them, checksums known beforehand.

A file has the size that the real model's file has, but takes a few kilobytes of disk, because its
tensors are a hole. Its checksum is the one of those very bytes, so `--verify` finds it sound. Hashing
gigabytes of zeros at every start would take minutes; `scripts/demo_checksums.py` did it once.
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
"""Where mlx-lm starts the next file."""

_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U32": 4}
_HASH_UP_TO = 1 << 20
_GGUF_MAGIC_AND_VERSION = b"GGUF\x03\x00\x00\x00"
_GGUF_UINT32, _GGUF_STRING = 4, 8
_GGUF_ALIGNMENT = 32


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model."""

    name: str
    """Name without the final `.weight` where `quantizable`, else the full name."""
    shape: tuple[int, ...]
    quantizable: bool = False
    dtype: str = "BF16"


@dataclass(frozen=True)
class Payload:
    """A file's bytes: a head that is written, then zeros that are not."""

    head: bytes
    size: int
    """Bytes, head included."""

    @property
    def key(self) -> str:
        """What identifies the bytes: their number and the head."""
        return f"{self.size}-{hashlib.sha256(self.head).hexdigest()[:16]}"

    @property
    def sha256(self) -> str:
        """The checksum of head and zeros.

        Raises:
            KeyError: a large file's checksum is not in `CHECKSUMS`; run `scripts/demo_checksums.py`.
        """
        if self.size <= _HASH_UP_TO:
            return self.hashed()
        return CHECKSUMS[self.key]

    def hashed(self) -> str:
        """Work the checksum out: about a second for every gigabyte."""
        digest = hashlib.sha256(self.head)
        zeros = bytes(_HASH_UP_TO)
        left = self.size - len(self.head)
        while left > 0:
            digest.update(zeros[:left] if left < len(zeros) else zeros)
            left -= len(zeros)
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write the file; the zeros stay a hole."""
        with path.open("wb") as file:
            file.write(self.head)
            file.truncate(self.size)


def quantize(tensors: Iterable[Tensor], bits: int | None, group: int = 64) -> list[Tensor]:
    """Return the tensors as MLX stores them: packed weights, scales and biases where quantized."""
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
    """Return a safetensors file: eight bytes with the header's length, the JSON header, the data."""
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
    """Return the files that hold the tensors, by name, split where `limit` (bytes) is passed."""
    groups: list[list[Tensor]] = [[]]
    held = 0
    for tensor in tensors:
        size = _size(tensor)
        if groups[-1] and held + size > limit:
            groups.append([])
            held = 0
        groups[-1].append(tensor)
        held += size
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
    """Return a GGUF file, version 3, that stores every tensor as Q8_0 (type 8) or F32 (type 0)."""
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
