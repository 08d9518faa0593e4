"""Runs a part of a test as an unprivileged user, so that file permissions also apply under root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_NOBODY = 65534


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Create a temporary folder that every user can access (pytest's folders are private)."""
    folder = Path(tempfile.mkdtemp(prefix="mlxk-open-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for path, _, _ in os.walk(folder):
            os.chmod(path, 0o755)
        shutil.rmtree(folder)


def give_away(root: Path) -> None:
    """Make the unprivileged user the owner of everything below a folder; does nothing without root."""
    if os.geteuid() != 0:
        return
    os.chown(root, _NOBODY, _NOBODY)
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            os.chown(os.path.join(folder, name), _NOBODY, _NOBODY, follow_symlinks=False)


@contextlib.contextmanager
def read_only_disk(folder: Path) -> Iterator[None]:
    """Mount a folder over itself, read-only; skip the test if that is not permitted."""
    mounts = ["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,bind,ro", str(folder)]
    try:
        for command in mounts:
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        subprocess.run(["umount", str(folder)], check=False, capture_output=True)
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Drop root privileges during the block, in all threads of the process."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
