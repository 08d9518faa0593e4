"""Finds BLAS libraries, without loading them."""

from __future__ import annotations

import importlib.util
import os
import platform
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

VARIABLE = "MLXK_BLAS"
"""Environment variable: a library's path or file name, or `off`."""
PACKAGE = "scipy-openblas32"
_PACKAGE_MODULE = "scipy_openblas32"
_PACKAGE_FILE = "lib/libscipy_openblas.so"
_SONAMES = (
    ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so"),
    ("libblis-mt.so.4", "libblis.so.4", "libblis-mt.so.3", "libblis.so.3", "libblis.so"),
    ("libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so.1", "libmkl_rt.so"),
)
"""File names of OpenBLAS, BLIS and MKL with 32-bit integers in Debian, Fedora, conda and Intel packages."""


class LibrarySource(str, Enum):
    """Where a library was found, in order of preference."""

    NAMED = "named"
    """Named by the user."""
    SYSTEM = "system"
    PACKAGE = "package"
    """scipy-openblas32, installed with this program."""


@dataclass(frozen=True)
class BlasLibrary:
    """A file that may be a fast BLAS library."""

    source: LibrarySource
    path: str
    """Absolute path; links are not resolved."""

    @property
    def name(self) -> str:
        """Name for messages: the package's name or the file name."""
        return PACKAGE if self.source is LibrarySource.PACKAGE else os.path.basename(self.path)


def is_off(environ: Mapping[str, str]) -> bool:
    """Return whether the user disabled other libraries than MLX's own."""
    return environ.get(VARIABLE, "").strip().lower() == "off"


def find_libraries(environ: Mapping[str, str]) -> tuple[BlasLibrary, ...]:
    """Return the libraries in order of preference: named, from the system, from the package."""
    if is_off(environ):
        return ()
    named = environ.get(VARIABLE, "").strip()
    folders = tuple(_folders(environ))
    found: list[BlasLibrary] = []
    if named:
        given = os.path.expanduser(named) if "/" in named else _first((named,), folders) or named
        if is_file(given):
            found.append(BlasLibrary(LibrarySource.NAMED, os.path.abspath(given)))
    for sonames in _SONAMES:
        path = _first(sonames, folders)
        if path is not None:
            found.append(BlasLibrary(LibrarySource.SYSTEM, path))
    package = _package_file()
    if package is not None:
        found.append(BlasLibrary(LibrarySource.PACKAGE, package))
    unique: dict[str, BlasLibrary] = {}
    for library in found:
        unique.setdefault(os.path.realpath(library.path), library)
    return tuple(unique.values())


def is_file(path: str) -> bool:
    """Return whether a path is a regular file; opening a pipe would block."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _first(names: tuple[str, ...], folders: tuple[str, ...]) -> str | None:
    paths = (os.path.join(folder, name) for name in names for folder in folders)
    return next((path for path in paths if is_file(path)), None)


def _folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the folders of the dynamic loader and the usual places of the libraries."""
    yield from (os.path.abspath(part) for part in environ.get("LD_LIBRARY_PATH", "").split(":") if part)
    yield os.path.join(sys.prefix, "lib")  # conda, and pip's own mkl
    yield "/usr/local/lib"
    yield f"/usr/lib/{platform.machine()}-linux-gnu"
    yield from ("/usr/lib64", "/usr/lib")
    yield from ("/opt/intel/oneapi/mkl/latest/lib", "/opt/intel/oneapi/mkl/latest/lib/intel64")


def _package_file() -> str | None:
    try:
        spec = importlib.util.find_spec(_PACKAGE_MODULE)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        path = os.path.join(folder, _PACKAGE_FILE)
        if is_file(path):
            return path
    return None
