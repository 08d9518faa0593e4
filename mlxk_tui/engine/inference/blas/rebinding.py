"""Redirects function calls of libmlx to another library, in memory only.

libmlx calls functions such as `cblas_sgemm` through its procedure linkage table, whose slots contain the
addresses that the loader found (System V ABI, "Dynamic Linking"; the ELF supplements of x86-64 and AArch64).
Writing other addresses into three of these slots redirects only these calls of this library. MLX's LAPACK,
NumPy and all other libraries are not affected, whatever symbols the other library exports.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_PT_DYNAMIC = 2
_PT_GNU_RELRO = 0x6474E552
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 2, 5, 6, 7, 8, 23
_SYMBOL_BYTES = 24
_SLOTS = {"x86_64": (7, 6, 1), "aarch64": (1026, 1025, 257)}
"""Types of relocations that contain a function's address, by machine: JUMP_SLOT, GLOB_DAT, 64 (ABS64)."""
_PROT_READ, _PROT_WRITE = 1, 2


class _Header(ctypes.Structure):
    """Elf64_Phdr."""

    _fields_ = [
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
    ]


class _Info(ctypes.Structure):
    """The beginning of struct dl_phdr_info."""

    _fields_ = [
        ("base", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.POINTER(_Header)),
        ("count", ctypes.c_uint16),
    ]


class RebindingError(Exception):
    """The calls cannot be redirected. The message is the reason, without a full stop."""


@dataclass(frozen=True)
class LoadedObject:
    """A shared library in this process."""

    path: str
    base: int
    """Load address, which is added to the addresses in the file."""
    dynamic: tuple[int, int]
    """Address and size of its dynamic section."""
    protected: tuple[int, int]
    """Begin and end of its RELRO segment, which the loader made read-only; (0, 0) if it has none."""


def find_loaded(file_name: str) -> LoadedObject:
    """Return the loaded library with a file name.

    Raises:
        RebindingError: it is not loaded, or the processor is not supported.
    """
    if platform.machine() not in _SLOTS or struct.calcsize("P") != 8:
        raise RebindingError(f"not supported on {platform.machine()}")
    found: list[LoadedObject] = []

    def look(pointer: ctypes._Pointer[_Info], size: int, data: int | None) -> int:
        info = pointer.contents
        path = os.fsdecode(info.name or b"")
        if os.path.basename(path) == file_name:
            headers = [info.headers[at] for at in range(info.count)]
            spans = {header.type: (info.base + header.vaddr, header.memsz) for header in headers}
            begin, size = spans.get(_PT_GNU_RELRO, (0, 0))
            if _PT_DYNAMIC in spans:
                found.append(LoadedObject(path, info.base, spans[_PT_DYNAMIC], (begin, begin + size)))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_size_t, ctypes.c_void_p)(look)
    ctypes.CDLL(None).dl_iterate_phdr(callback, None)
    if len(found) != 1:
        raise RebindingError(f"{file_name} is not loaded" if not found else f"there are several {file_name}")
    return found[0]


def rebind(library: LoadedObject, targets: Mapping[str, int]) -> dict[str, int]:
    """Redirect a library's calls of some functions, all of them or none.

    No code of the library may run meanwhile.

    Args:
        library: the calling library.
        targets: the new address of each function.

    Returns:
        The previous addresses; passing them as `targets` undoes the change.

    Raises:
        RebindingError: it does not call one of the functions through its table.
    """
    slots: dict[str, list[int]] = {name: [] for name in targets}
    for name, address in _slots(library):
        if name in slots:
            slots[name].append(address)
    missing = [name for name, addresses in slots.items() if not addresses]
    if missing:
        raise RebindingError(f"{os.path.basename(library.path)} does not call {', '.join(missing)}")
    before: dict[str, int] = {}
    for name, addresses in slots.items():
        for address in addresses:
            slot = ctypes.c_uint64.from_address(address)
            before[name] = slot.value
            _write(library, slot, address, targets[name])
    return before


def _slots(library: LoadedObject) -> Iterator[tuple[str, int]]:
    """Yield the name of each function that the loader looks up, and the address of its slot."""
    entries: dict[int, int] = {}
    for tag, value in struct.iter_unpack("=qQ", ctypes.string_at(*library.dynamic)):
        if tag == 0:
            break
        entries.setdefault(tag, value)

    def address(tag: int) -> int:
        value = entries[tag]  # glibc has already added the base; other loaders have not
        return value if value >= library.base else library.base + value

    kinds = _SLOTS[platform.machine()]
    for table, length in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
        if table not in entries or length not in entries:
            continue
        relocations = ctypes.string_at(address(table), entries[length])
        for offset, info, _ in struct.iter_unpack("=QQq", relocations):
            symbol = info >> 32
            if symbol and info & 0xFFFFFFFF in kinds:
                name = ctypes.c_uint32.from_address(address(_DT_SYMTAB) + _SYMBOL_BYTES * symbol).value
                text = ctypes.string_at(address(_DT_STRTAB) + name)
                yield text.decode("ascii", "replace"), library.base + offset


def _write(library: LoadedObject, slot: ctypes.c_uint64, address: int, value: int) -> None:
    """Write an address of eight aligned bytes atomically.

    Raises:
        RebindingError: its page cannot be made writable.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    begin, end = library.protected
    guarded = begin // page * page <= address < end // page * page
    start = address // page * page
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if guarded and libc.mprotect(start, page, _PROT_READ | _PROT_WRITE) != 0:
        raise RebindingError(f"its table is read-only: {os.strerror(ctypes.get_errno())}")
    slot.value = value
    if guarded:
        libc.mprotect(start, page, _PROT_READ)
