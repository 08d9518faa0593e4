"""Checks the header of a safetensors file: whether the file is complete, without reading its weights.

Format (safetensors 0.4): eight bytes, little endian, with the length N of the header; N bytes of JSON
that map tensor names to dtype, shape and data_offsets; then the data, which the tensors cover
without gaps. The file is complete if its size is exactly 8 + N + data.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Any

MAX_HEADER_BYTES = 25_000_000
"""Longest header that is read; the library allows 100 MB, the largest real ones have about 5 MB."""
_SMALL = 1_000_000

_MAX_DIMS = 32
_DTYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
}


class HeaderFault(str, Enum):
    """Kinds of problems of a file."""

    EMPTY = "empty"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    UNREADABLE = "unreadable"


class HeaderError(Exception):
    """The file is not a complete safetensors file.

    Attributes:
        fault: the kind of problem.
        message: the cause, as a predicate of the file's name: "is empty".
    """

    def __init__(self, fault: HeaderFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message


@dataclass(frozen=True)
class Header:
    """Totals over the tensors in a valid header."""

    tensors: int
    """Number of tensors."""
    data_bytes: int
    """Bytes of data after the header."""
    elements: dict[str, int]
    """Number of elements by dtype, such as `{"U32": 1048576}`."""


def read_header(path: str) -> Header:
    """Read and check the header of a file; nothing after the header is read.

    Raises:
        HeaderError: the file is empty, truncated, not a safetensors file, or unreadable.
    """
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise HeaderError(HeaderFault.UNREADABLE, f"cannot be read: {error.strerror}") from None
    try:
        file_size = os.fstat(fd).st_size
        length = _header_length(_read(fd, 8), file_size)
        raw = _read(fd, length)
    except OSError as error:
        raise HeaderError(HeaderFault.UNREADABLE, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    if len(raw) < length:
        raise HeaderError(HeaderFault.TRUNCATED, "is truncated within its header")
    return _check(_parse(raw), file_size - 8 - length)


def _read(fd: int, count: int) -> bytes:
    """Read up to `count` bytes; one system call may return fewer."""
    parts = bytearray()
    while len(parts) < count:
        part = os.read(fd, count - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)


def _header_length(raw: bytes, file_size: int) -> int:
    if file_size == 0:
        raise HeaderError(HeaderFault.EMPTY, "is empty")
    if len(raw) < 8:
        raise HeaderError(HeaderFault.TRUNCATED, "is too short to be a safetensors file")
    (length,) = struct.unpack("<Q", raw)
    if length < 2 or length > MAX_HEADER_BYTES:
        raise HeaderError(HeaderFault.CORRUPT, "does not begin with a safetensors header")
    if length > file_size - 8:
        raise HeaderError(HeaderFault.TRUNCATED, "is truncated within its header")
    return int(length)


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise HeaderError(HeaderFault.CORRUPT, "does not begin with a safetensors header")
    if len(raw) > _SMALL and max(raw.count(b"["), 2 * raw.count(b"{")) > len(raw) // 16:
        # A tensor needs at least 48 bytes and two lists, so this header consists of empty ones: a JSON bomb.
        raise HeaderError(HeaderFault.CORRUPT, "has a header that does not describe tensors")
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise HeaderError(HeaderFault.CORRUPT, "has a header that is not valid JSON") from None
    if not isinstance(value, dict):
        raise HeaderError(HeaderFault.CORRUPT, "has a header that is not a JSON object")
    return value


def _check(header: dict[str, Any], data_bytes: int) -> Header:
    try:
        spans, elements = _tensors(header)
    except (TypeError, KeyError, ValueError, IndexError, AttributeError):
        raise HeaderError(HeaderFault.CORRUPT, "has a header with a malformed tensor") from None
    if not spans:
        raise HeaderError(HeaderFault.EMPTY, "contains no weights")
    spans.sort()
    position = 0
    for begin, end in spans:
        if begin != position:
            raise HeaderError(HeaderFault.CORRUPT, "has a header whose tensors overlap or leave gaps")
        position = end
    if position > data_bytes:
        raise HeaderError(
            HeaderFault.TRUNCATED, f"is truncated: {position - data_bytes:,} bytes of weights are missing"
        )
    if position < data_bytes:
        raise HeaderError(
            HeaderFault.CORRUPT, f"has {data_bytes - position:,} bytes more than its header declares"
        )
    return Header(len(spans), position, elements)


def _tensors(header: dict[str, Any]) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Return (begin, end) of each tensor, and the number of elements by dtype.

    Large models have tens of thousands of tensors: this loop takes most of the time of a scan.

    Raises:
        TypeError, KeyError, ValueError, IndexError, AttributeError: an entry is malformed.
        HeaderError: shapes and offsets disagree.
    """
    spans: list[tuple[int, int]] = []
    elements: dict[str, int] = {}
    header.pop("__metadata__", None)
    for entry in header.values():
        begin, end = entry["data_offsets"]
        shape, dtype = entry["shape"], entry["dtype"]
        if len(shape) > _MAX_DIMS or (shape and min(shape) < 0):
            raise ValueError
        count = math.prod(shape)
        if type(dtype) is not str or not (
            type(begin) is type(end) is type(count) is int and 0 <= begin <= end
        ):
            raise ValueError
        bits = _DTYPE_BITS.get(dtype)  # unknown dtypes belong to a newer format and are accepted
        if bits is not None and count * bits != (end - begin) * 8:
            raise HeaderError(HeaderFault.CORRUPT, "has a header whose shapes and offsets disagree")
        spans.append((begin, end))
        elements[dtype] = elements.get(dtype, 0) + count
    return spans, elements
