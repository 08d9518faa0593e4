"""Creates broken libraries: copies of scipy-openblas32 with one function overwritten."""

from __future__ import annotations

import platform
import struct
from enum import Enum
from pathlib import Path


class Fault(Enum):
    """Replacements of the function, as machine code for x86-64 and AArch64."""

    DIES = (b"\x0f\x0b", struct.pack("<I", 0))
    """An illegal instruction, as code for another processor would be."""
    HANGS = (b"\xeb\xfe", struct.pack("<I", 0x14000000))
    """A jump to itself."""
    DOES_NOTHING = (b"\xc3", struct.pack("<I", 0xD65F03C0))
    """It returns at once, so that the numbers are wrong."""


def broken_copy(library: Path, target: Path, fault: Fault, function: str = "scipy_cblas_sgemm") -> Path:
    """Write a copy of a library with one faulty function."""
    content = bytearray(library.read_bytes())
    at = _offset_of(content, function)
    code = fault.value[0 if platform.machine() == "x86_64" else 1]
    content[at : at + len(code)] = code
    target.write_bytes(content)
    return target


def _offset_of(content: bytes | bytearray, name: str) -> int:
    """Return the offset of a function in a 64-bit ELF file."""
    header = struct.unpack_from("<16sHHIQQQIHHHHHH", content)
    programs = [
        struct.unpack_from("<IIQQQQQQ", content, header[5] + header[9] * at) for at in range(header[10])
    ]
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", content, header[6] + header[11] * at) for at in range(header[12])
    ]
    symbols = next(section for section in sections if section[1] == 11)  # SHT_DYNSYM
    strings = sections[symbols[6]]
    for at in range(symbols[4], symbols[4] + symbols[5], 24):
        word, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", content, at)
        begin = strings[4] + word
        if content[begin : begin + len(name) + 1] == name.encode() + b"\0":
            load = next(p for p in programs if p[0] == 1 and p[3] <= value < p[3] + p[5])
            return int(value - load[3] + load[2])
    raise LookupError(name)
