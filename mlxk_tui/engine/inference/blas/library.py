"""Loads the matrix product functions of a BLAS library and binds them into MLX's CPU build."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass

from mlxk_tui.engine.inference.blas.rebinding import RebindingError, find_loaded, rebind

FUNCTIONS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
"""The CBLAS functions that libmlx (0.32) calls."""
_LIBMLX = "libmlx.so"
_PREFIXES = ("", "scipy_")
"""Prefixes of the function names; scipy-openblas32 has its own prefix."""


@dataclass(frozen=True)
class BlasFunctions:
    """The functions of a loaded library."""

    name: str
    """Name and version according to the library itself."""
    addresses: dict[str, int]
    """Addresses of `FUNCTIONS` by name."""
    set_threads: Callable[[int], None] | None
    """Sets the library's number of threads; None if it has no such function."""


class BlasLibraryError(Exception):
    """A library cannot be used. The message is the reason, without a full stop."""


def load_functions(path: str) -> BlasFunctions:
    """Load a library with local symbols, so that other libraries in the process do not see it.

    Raises:
        BlasLibraryError: it cannot be loaded, lacks a function, or uses 64-bit integers.
    """
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        raise BlasLibraryError(str(error).splitlines()[0][:200]) from error
    for prefix in _PREFIXES:
        functions = [getattr(library, prefix + name, None) for name in FUNCTIONS]
        if None not in functions:
            break
    else:
        raise BlasLibraryError(f"it has no {', '.join(FUNCTIONS)}")
    addresses = {
        name: ctypes.cast(function, ctypes.c_void_p).value or 0
        for name, function in zip(FUNCTIONS, functions, strict=True)
        if function is not None
    }
    name = _own_name(library, prefix)
    if "USE64BITINT" in name:
        raise BlasLibraryError("it uses 64-bit integers")
    own_name = " ".join(name.split()[:2]) or os.path.basename(path)
    return BlasFunctions(own_name, addresses, _find_set_threads(library, prefix))


def bind(addresses: dict[str, int]) -> dict[str, int]:
    """Make MLX call other functions. No MLX operation may run meanwhile.

    Args:
        addresses: addresses of `FUNCTIONS` by name.

    Returns:
        The previous addresses.

    Raises:
        BlasLibraryError: this version of MLX does not call one of them.
    """
    try:
        return rebind(find_loaded(_LIBMLX), addresses)
    except RebindingError as error:
        raise BlasLibraryError(str(error)) from error


def _own_name(library: ctypes.CDLL, prefix: str) -> str:
    """Return the version and build string of OpenBLAS, BLIS or MKL; empty for other libraries."""
    for name, label in ((f"{prefix}openblas_get_config", ""), ("bli_info_get_version_str", "BLIS ")):
        function = getattr(library, name, None)
        if function is not None:
            function.restype = ctypes.c_char_p
            return label + (function() or b"").decode("ascii", "replace")
    if hasattr(library, "MKL_Get_Max_Threads"):
        return "Intel MKL"
    return ""


def _find_set_threads(library: ctypes.CDLL, prefix: str) -> Callable[[int], None] | None:
    for name, number in (
        (f"{prefix}openblas_set_num_threads", ctypes.c_int),
        ("bli_thread_set_num_threads", ctypes.c_int64),
        ("MKL_Set_Num_Threads", ctypes.c_int),
    ):
        function = getattr(library, name, None)
        if function is not None:
            function.argtypes, function.restype = (number,), None
            set_threads: Callable[[int], None] = function
            return set_threads
    return None
