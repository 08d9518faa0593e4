"""API keys: parsing, the file that stores them, and comparison in constant time."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.files import replace_file
from mlxk_tui.ops.core.os_errors import error_reason, error_type
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

VARIABLE = "MLXK_API_KEY"
"""Environment variable with comma-separated keys."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]{1,512}")
_MAX_FILE_BYTES = 100_000


def parse_keys(texts: Iterable[str], source: str) -> dict[str, str]:
    """Parse `KEY` or `NAME:KEY` entries and return the keys by name; unnamed ones get a generated name.

    Raises:
        OpError: `validation_error`; the message contains the source but never the key.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, colon, key = text.strip().partition(":")
        if not colon:
            name, key = ("default" if "default" not in found else f"key-{len(found) + 1}"), name
        if not _NAME.fullmatch(name) or not _KEY.fullmatch(key):
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                f"Invalid API key in {source}. Write KEY or NAME:KEY: the name with letters, digits, "
                "'.', '_' and '-', the key in printable ASCII without spaces.",
            )
        if name in found:
            raise OpError(ErrorType.VALIDATION_ERROR, f"Two API keys in {source} are named '{name}'.")
        found[name] = key
    return found


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the keys in `MLXK_API_KEY`, by name.

    Raises:
        OpError: `validation_error` if one is invalid.
    """
    return parse_keys((text for text in environ.get(VARIABLE, "").split(",") if text.strip()), VARIABLE)


def read_keys(path: Path) -> dict[str, str]:
    """Return the keys of a file, by name: one per line, `#` starts a comment. Empty if it doesn't exist.

    Raises:
        OpError: `permission_denied` if other users can read the file, or this one can't;
            `validation_error` if a key is invalid.
    """
    try:
        with open(path, "rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise OpError(
                    ErrorType.PERMISSION_DENIED,
                    f"Other users can read the API keys in {path}.",
                    remedy=Remedy.RESTRICT_FILE,
                )
            text = stream.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OpError(
            ErrorType.PERMISSION_DENIED, f"The API keys in {path} can't be read: {error.strerror}."
        ) from None
    lines = (line.strip() for line in text.splitlines())
    return parse_keys((line for line in lines if line and not line.startswith("#")), str(path))


def save_keys(path: Path, keys: Mapping[str, str]) -> None:
    """Write keys atomically to a file that only the user can read (mode 0600).

    Raises:
        OpError: `disk_full`, or `permission_denied` for other errors of the file system.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, "".join(f"{name}:{key}\n" for name, key in keys.items()), mode=0o600)
    except OSError as error:
        raise OpError(
            error_type(error) or ErrorType.PERMISSION_DENIED,
            f"The API keys were not saved to {path}: {error_reason(error)}.",
        ) from None


def new_key() -> str:
    """Return a new random key (256 bits)."""
    return f"mlxk-{secrets.token_urlsafe(32)}"


def find_key_name(given: str | None, keys: Mapping[str, str]) -> str | None:
    """Return the name of a key, or None if it is unknown; the time taken reveals nothing about the keys."""
    encoded = (given or "").encode("utf-8", "surrogateescape")
    found: str | None = None
    for name, key in keys.items():
        if hmac.compare_digest(encoded, key.encode()):
            found = name
    return found


def missing_key_error(host: str) -> OpError:
    """Return the error for a server that other machines could reach without an API key."""
    return OpError(
        ErrorType.VALIDATION_ERROR,
        f"Listening on {printable(host)[:100] or 'every address'} allows access from other machines, so it "
        "needs an API key.",
        remedy=Remedy.SET_API_KEY,
    )
