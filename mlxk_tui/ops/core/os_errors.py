"""What the operating system's error numbers mean: the one table from errno to the contract's types."""

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
"""What O_NOFOLLOW says of a link: the first on Linux and macOS, the second on FreeBSD."""
UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""The file system has no such thing."""


def error_type(error: OSError) -> ErrorType | None:
    """Return the type for an error that any operation may meet; None where it depends on the operation."""
    return _TYPES.get(error.errno or 0)


def reason_of(error: OSError) -> str:
    """Return the system's own words, without a path: "No space left on device"."""
    return error.strerror or "input/output error"
