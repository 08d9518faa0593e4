"""Explains why the proxy in the environment cannot be used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import printable

SUPPORTED_SCHEMES = "http:// or socks5://"
"""Supported schemes of a proxy's address, for messages."""
_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def proxy_error(error: BaseException, environ: Mapping[str, str] | None = None) -> OpError | None:
    """Return the OpError if the hub's HTTP client could not be created because of a proxy, else None.

    httpx raises ImportError without the SOCKS library, and ValueError for an unsupported scheme; neither
    names the variable that sets the proxy.
    """
    text = str(error)
    if isinstance(error, ImportError) and "socks" in text.lower():
        return OpError(
            ErrorType.DEPENDENCY_MISSING,
            f"{_describe_proxy('socks', environ)} needs the package socksio.",
            remedy=Remedy.INSTALL_EXTRA,
            facts=ErrorFacts(package="socks"),
        )
    if isinstance(error, ValueError) and "scheme for proxy" in text.lower():
        return OpError(
            ErrorType.NETWORK_ERROR,
            f"{_describe_proxy('', environ)} has an unsupported scheme.",
            remedy=Remedy.CHANGE_PROXY,
        )
    return None


def _describe_proxy(kind: str, environ: Mapping[str, str] | None) -> str:
    """Return the proxy and its variable as a subject of a sentence, without user name and password."""
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
    return "The system's proxy"
