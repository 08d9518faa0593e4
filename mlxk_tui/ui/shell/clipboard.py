"""Copying in layers: the terminal itself (OSC 52, also over SSH and through tmux), then a local command.

OSC 52 alone does nothing in Terminal.app, and tmux drops it unless it is wrapped for pass-through
or `set-clipboard` is on; a local command alone copies on the wrong machine over SSH. So both.
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
    """Return OSC 52 wrapped for tmux's pass-through; the plain one needs `set-clipboard on`."""
    plain = f"\x1b]52;c;{base64.b64encode(text.encode('utf-8', 'replace')).decode()}\a"
    return "\x1bPtmux;" + plain.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def is_remote(environ: Mapping[str, str]) -> bool:
    """Tell whether the terminal is on another machine than this program."""
    return bool(environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"))


def copy_locally(text: str) -> None:
    """Hand text to the first clipboard command of this machine; blocking, for threads."""
    for name, arguments in _COMMANDS:
        command = shutil.which(name)
        if command is None or (name == "wl-copy" and not os.environ.get("WAYLAND_DISPLAY")):
            continue
        if name in {"xclip", "xsel"} and not os.environ.get("DISPLAY"):
            continue
        subprocess.run(  # noqa: S603 - a fixed command, found on PATH; the text goes in on stdin
            [command, *arguments],
            input=text.encode("utf-8", "surrogateescape"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        return
