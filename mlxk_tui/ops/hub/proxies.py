"""Which proxy the environment names, and what is wrong with one that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import printable

KINDS = "http:// or socks5://"
"""How the address of a proxy that can be used begins."""
_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def proxy_fault(error: BaseException, environ: Mapping[str, str] | None = None) -> OpError | None:
    """Return what it means that the hub's HTTP client could not be made because of a proxy, else None.

    httpx raises ImportError without the library for SOCKS, and ValueError for a kind that it does not know;
    neither says which variable named the proxy.
    """
    text = str(error)
    if isinstance(error, ImportError) and "socks" in text.lower():
        return OpError(
            ErrorType.DEPENDENCY_MISSING,
            f"{_named('socks', environ)} needs the package socksio.",
            remedy=Remedy.INSTALL_EXTRA,
            facts=ErrorFacts(package="socks"),
        )
    if isinstance(error, ValueError) and "scheme for proxy" in text.lower():
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"{_named('', environ)} is not of a kind that can be used.",
            remedy=Remedy.CHANGE_PROXY,
        )
    return None


def _named(kind: str, environ: Mapping[str, str] | None) -> str:
    """Return the proxy and its variable as the start of a sentence, without name and password."""
    env = os.environ if environ is None else environ
    usable = ("http", "https", "socks5", "socks5h")
    for name in (*_VARIABLES, *(variable.lower() for variable in _VARIABLES)):
        address = env.get(name) or ""
        try:
            parts = urlsplit(address if "://" in address else f"http://{address}")
            host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
        except ValueError:
            continue
        if address and (parts.scheme.startswith(kind) if kind else parts.scheme not in usable):
            return f"The proxy {printable(f'{parts.scheme}://{host}')} ({name})"
    return "The proxy of this system"
