"""Crash reports: a file with the traceback, and a sentence for the terminal."""

from __future__ import annotations

import os
import platform
import traceback
from pathlib import Path

import platformdirs

from mlxk_tui import __version__


def report(error: BaseException | None) -> str:
    """Write the traceback of `error` to a file and return a sentence that names the file.

    The file contains code locations and the error's message, but no values of variables: they may be private.
    """
    kind = type(error).__name__ if error else "unknown error"
    details = "".join(traceback.format_exception(error)) if error else "no traceback\n"
    facts = f"mlxk-tui {__version__}, Python {platform.python_version()}, {platform.platform()}\n\n"
    path = platformdirs.user_state_path("mlxk-tui", appauthor=False) / "crash.log"
    try:
        _write(path, facts + details)
    except OSError:
        return f"mlxk-tui crashed ({kind}). Please report this.\n{details}"
    return f"mlxk-tui crashed ({kind}). Please report this.\nDetails: {path}\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text.encode("utf-8", "backslashreplace").decode())
