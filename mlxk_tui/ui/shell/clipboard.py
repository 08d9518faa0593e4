"""Copies to the clipboard by OSC 52 (also over SSH and through tmux) and by a local command.

Both are needed: Terminal.app ignores OSC 52, tmux drops it unless it is wrapped for pass-through or
`set-clipboard` is on, and over SSH a local command copies on the wrong machine.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping

_COMMANDS = (
    ("pbcopy", ()),
    ("wl-copy", ()),
    ("xclip", ("-selection", "clipboard")),
    ("xsel", ("--clipboard", "--input")),
)
_TIMEOUT_SECONDS = 2


def tmux_sequence(text: str) -> str:
    """Return OSC 52 wrapped for tmux's pass-through; the plain sequence needs `set-clipboard on`."""
    plain = f"\x1b]52;c;{base64.b64encode(text.encode('utf-8', 'replace')).decode()}\a"
    return "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def is_remote(environ: Mapping[str, str]) -> bool:
    """Return whether this program runs in an SSH session."""
    return bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"))


def copy_locally(text: str) -> None:
    """Copy with the first clipboard command that this machine has; blocking, for threads."""
    for name, arguments in _COMMANDS:
        command = shutil.which(name)
        if command is None or (name == "wl-copy" and not os.environ.get("WAYLAND_DISPLAY")):
            continue
        if name in {"xclip", "xsel"} and not os.environ.get("DISPLAY"):
            continue
        subprocess.run(  # noqa: S603 - a fixed command, found on PATH; the text goes to its stdin
            [command, *arguments],
            input=text.encode("utf-8", "surrogateescape"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        return
