"""Errors of connections."""

from __future__ import annotations


class ConnectionStoppedError(Exception):
    """The connection was aborted by another thread, to stop the download."""


class ConnectionFailedError(Exception):
    """The connection could not be made, or was interrupted; another attempt can help."""


class FatalConnectionError(Exception):
    """The certificate or the proxy is not acceptable; another attempt cannot help."""
