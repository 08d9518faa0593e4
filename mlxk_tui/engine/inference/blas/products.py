"""A library's matrix products: loaded, and bound into MLX's CPU build."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass

from mlxk_tui.engine.inference.blas.rebinding import RebindingError, find_loaded, rebind

FUNCTIONS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
"""All that libmlx takes from CBLAS (0.32)."""
_LIBMLX = "libmlx.so"
_PREFIXES = ("", "scipy_")
"""What the names of the functions begin with; scipy-openblas32 has its own beginning."""


@dataclass(frozen=True)
class Products:
    """The functions of a loaded library."""

    name: str
    """What it calls itself, with its version."""
    addresses: dict[str, int]
    """By name."""
    set_threads: Callable[[int], None] | None
    """Tells it how many threads it may use from now on."""


class ProductsError(Exception):
    """A library cannot be used; the text says why, without a full stop."""


def load_products(path: str) -> Products:
    """Load a library for itself: what is in the process already does not see it.

    Raises:
        ProductsError: it cannot be loaded, lacks a function, or takes 64-bit integers.
    """
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        raise ProductsError(str(error).splitlines()[0][:200]) from error
    for prefix in _PREFIXES:
        functions = [getattr(library, prefix + name, None) for name in FUNCTIONS]
        if None not in functions:
            break
    else:
        raise ProductsError(f"it has no {', '.join(FUNCTIONS)}")
    addresses = {
        name: ctypes.cast(function, ctypes.c_void_p).value or 0
        for name, function in zip(FUNCTIONS, functions, strict=True)
        if function is not None
    }
    name = _own_name(library, prefix)
    if "USE64BITINT" in name:
        raise ProductsError("it takes 64-bit integers")
    own_name = " ".join(name.split()[:2]) or os.path.basename(path)
    return Products(own_name, addresses, _threads_of(library, prefix))


def bind(addresses: dict[str, int]) -> dict[str, int]:
    """Let MLX multiply with these functions and return those until now. MLX must be at rest.

    Raises:
        ProductsError: this MLX does not call them.
    """
    try:
        return rebind(find_loaded(_LIBMLX), addresses)
    except RebindingError as error:
        raise ProductsError(str(error)) from error


def _own_name(library: ctypes.CDLL, prefix: str) -> str:
    """Return what OpenBLAS or BLIS tells of its version and build; empty where nothing is told."""
    for name, label in ((f"{prefix}openblas_get_config", ""), ("bli_info_get_version_str", "BLIS ")):
        function = getattr(library, name, None)
        if function is not None:
            function.restype = ctypes.c_char_p
            return label + (function() or b"").decode("ascii", "replace")
    if hasattr(library, "MKL_Get_Max_Threads"):
        return "Intel MKL"
    return ""


def _threads_of(library: ctypes.CDLL, prefix: str) -> Callable[[int], None] | None:
    for name, number in (
        (f"{prefix}openblas_set_num_threads", ctypes.c_int),
        ("bli_thread_set_num_threads", ctypes.c_int64),
        ("MKL_Set_Num_Threads", ctypes.c_int),
    ):
        function = getattr(library, name, None)
        if function is not None:
            function.argtypes, function.restype = (number,), None
            tell: Callable[[int], None] = function
            return tell
    return None
