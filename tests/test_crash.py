"""Crash reports: a sentence, and a file without values of variables."""

from __future__ import annotations

import stat
from pathlib import Path

import platformdirs
import pytest

from mlxk_tui import crash


def _error() -> ValueError:
    secret = "hf_" + "x" * 30
    try:
        raise ValueError(f"an error with {len(secret)} characters")
    except ValueError as error:
        return error


def test_traceback_is_written_to_a_private_file() -> None:
    message = crash.report(_error())
    path = platformdirs.user_state_path("mlxk-tui", appauthor=False) / "crash.log"
    assert str(path) in message
    assert "Traceback" not in message
    text = path.read_text()
    assert "ValueError: an error with 33 characters" in text
    assert "hf_xxx" not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_traceback_is_printed_if_no_file_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    assert "ValueError: an error" in crash.report(_error())
