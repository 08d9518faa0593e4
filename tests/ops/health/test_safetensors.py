"""The reader of safetensors headers: complete files pass, all others have a specific error."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from mlxk_tui.ops.health.safetensors import HeaderError, HeaderFault, read_header
from tests.support.hf_cache import safetensors


def _file(folder: Path, data: bytes) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return str(path)


def _raw(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_complete_file_has_tensors_bytes_and_elements(tmp_path: Path) -> None:
    header = read_header(_file(tmp_path, safetensors({"a": ("F16", (4, 8)), "b": ("U32", (3,))})))
    assert (header.tensors, header.data_bytes, header.elements) == (2, 76, {"F16": 32, "U32": 3})


def test_metadata_and_padding_are_not_tensors(tmp_path: Path) -> None:
    header = read_header(_file(tmp_path, safetensors({"a": ("F32", (2,))}, metadata={"format": "mlx"})))
    assert (header.tensors, header.data_bytes) == (1, 8)


ONE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", HeaderFault.EMPTY),
        (b"abc", HeaderFault.TRUNCATED),
        (_raw({}), HeaderFault.EMPTY),
        (b"\0" * 4096, HeaderFault.CORRUPT),
        (_raw(ONE, b"1234567"), HeaderFault.TRUNCATED),
        (_raw(ONE, b"123456789"), HeaderFault.CORRUPT),
        (_raw(ONE)[:20], HeaderFault.TRUNCATED),
        (struct.pack("<Q", 2**63) + b"{}", HeaderFault.CORRUPT),
        (struct.pack("<Q", 50) + b"{}", HeaderFault.TRUNCATED),
        (struct.pack("<Q", 4) + b"[1] ", HeaderFault.CORRUPT),
        (struct.pack("<Q", 200_000) + b"{" + b'"a":{' * 39_999 + b"xxxx", HeaderFault.CORRUPT),
        (_raw({"a": 1}, b""), HeaderFault.CORRUPT),
        (_raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}), HeaderFault.CORRUPT),
        (_raw({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"8" * 8), HeaderFault.CORRUPT),
        (
            _raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"8" * 12),
            HeaderFault.CORRUPT,
        ),
        (_raw({"a": {"dtype": "F32", "shape": [10**30] * 31, "data_offsets": [0, 8]}}), HeaderFault.CORRUPT),
        (_raw({"a": {"dtype": "F32", "shape": "22", "data_offsets": "ab"}}), HeaderFault.CORRUPT),
    ],
)
def test_every_broken_file_has_its_error(tmp_path: Path, data: bytes, fault: HeaderFault) -> None:
    with pytest.raises(HeaderError) as caught:
        read_header(_file(tmp_path, data))
    assert caught.value.fault is fault


def test_unknown_dtype_is_accepted(tmp_path: Path) -> None:
    data = _raw({"a": {"dtype": "F4_NEW", "shape": [2], "data_offsets": [0, 1]}}, b"1")
    assert read_header(_file(tmp_path, data)).elements == {"F4_NEW": 2}


@settings(max_examples=300)
@given(cut=st.integers(0), position=st.integers(0), flip=st.integers(1, 255))
def test_truncated_file_is_always_detected(cut: int, position: int, flip: int) -> None:
    whole = safetensors({"a": ("F16", (4, 8)), "b": ("U8", (5,))})
    damaged = bytearray(whole)
    damaged[position % len(whole)] ^= flip
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(damaged)[: cut % len(whole)])
        file.flush()
        with pytest.raises(HeaderError):
            read_header(file.name)
        file.seek(0)
        file.write(bytes(damaged))
        file.flush()
        with contextlib.suppress(HeaderError):  # a changed bit in the weights is only found by checksums
            assert read_header(file.name).tensors > 0


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_the_typed_error(raw: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(raw)
        file.flush()
        with pytest.raises(HeaderError):
            read_header(file.name)


def test_only_the_header_is_read(tmp_path: Path) -> None:
    """Of a terabyte of weights (a sparse file) only the header is read."""
    size = 10**12
    text = json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + size)
    assert read_header(str(path)).data_bytes == size


def test_pipe_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "pipe.safetensors"
    os.mkfifo(path)
    with pytest.raises(HeaderError):
        read_header(str(path))


@pytest.mark.parametrize("item", [b"[]", b"{}", b"[[[]]]"])
def test_oversized_header_is_rejected_before_parsing(tmp_path: Path, item: bytes) -> None:
    text = b'{"a":[' + item + (b"," + item) * 1_000_000 + b"]}"
    with pytest.raises(HeaderError) as caught:
        read_header(_file(tmp_path, struct.pack("<Q", len(text)) + text))
    assert caught.value.message == "has a header that does not describe tensors"


def test_header_with_many_tensors_is_read(tmp_path: Path) -> None:
    many = {f"model.layers.{n}.self_attn.q_proj.weight": ("F16", (1,)) for n in range(20_000)}
    assert read_header(_file(tmp_path, safetensors(many))).tensors == 20_000
