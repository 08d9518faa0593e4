"""What is left of a fault of our own: one sentence, and a file without the values of variables."""

from __future__ import annotations

import stat
from pathlib import Path

import platformdirs
import pytest

from mlxk_tui import crash


def _fault() -> ValueError:
    secret = "hf_" + "x" * 30
    try:
        raise ValueError(f"a fault of {len(secret)} characters")
    except ValueError as error:
        return error


def test_the_traceback_goes_to_a_private_file_that_the_sentence_names() -> None:
    sentence = crash.report(_fault())
    path = platformdirs.user_state_path("mlxk-tui", appauthor=False) / "crash.log"
    assert str(path) in sentence
    assert "Traceback" not in sentence
    text = path.read_text()
    assert "ValueError: a fault of 33 characters" in text
    assert "hf_xxx" not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_where_no_file_can_be_written_the_traceback_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    assert "ValueError: a fault" in crash.report(_fault())
