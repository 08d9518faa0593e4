"""Maps `errno` values of OSError to the contract's error types; the only such table."""

from __future__ import annotations

import errno

from mlxk_tui.ops.core.errors import ErrorType

_TYPES = {
    errno.ENOSPC: ErrorType.DISK_FULL,
    errno.EDQUOT: ErrorType.DISK_FULL,
    errno.EACCES: ErrorType.PERMISSION_DENIED,
    errno.EPERM: ErrorType.PERMISSION_DENIED,
    errno.EROFS: ErrorType.PERMISSION_DENIED,
    errno.EADDRINUSE: ErrorType.PORT_IN_USE,
}
IS_LINK = frozenset({errno.ELOOP, errno.EMLINK})
"""Errors of O_NOFOLLOW for a link: ELOOP on Linux and macOS, EMLINK on FreeBSD."""
UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""The file system does not support the call."""


def error_type(error: OSError) -> ErrorType | None:
    """Return the type of an error that any operation can meet; None when it depends on the operation."""
    return _TYPES.get(error.errno or 0)


def error_reason(error: OSError) -> str:
    """Return the system's message without a path, such as "No space left on device"."""
    return error.strerror or "input/output error"
