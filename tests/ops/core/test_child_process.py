"""Child processes: they do not import from the user's folder, and leave no zombies or orphans."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from mlxk_tui.ops.core.child_process import ChildProcess, _absolute
from tests.engine.conftest import is_gone
from tests.support.waiting import PATIENCE_S

DOWNLOAD, PARSER = "mlxk_tui.ops.hub.download_worker", "mlxk_tui.server.http.parser_worker"


async def test_child_process_does_not_import_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pickle", "psutil", "mlxk_tui"):
        (tmp_path / f"{name}.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    child = await ChildProcess.start(PARSER, logs=True)
    child.close_stdin()
    assert child.stderr is not None
    assert await child.stderr.read() == b""
    assert await child.wait(PATIENCE_S) == 0
    assert not (tmp_path / "imported").exists()


async def test_child_process_answers_in_json_lines() -> None:
    job: dict[str, object] = {
        "endpoint": "http://127.0.0.1:1",
        "repo": "o/m",
        "commit": "0" * 40,
        "token": None,
        "files": [],
    }
    child = await ChildProcess.start(DOWNLOAD)
    child.send(job)
    await child.drain()
    assert json.loads(await child.stdout.readline()) == {"type": None, "message": ""}
    assert await child.wait(PATIENCE_S) == 0
    child.send(job)  # nothing reads it
    assert child.pid is None


async def test_stopped_child_process_is_reaped() -> None:
    child = await ChildProcess.start(DOWNLOAD, own_session=True)
    pid = child.pid
    assert pid is not None
    with pytest.raises(asyncio.TimeoutError):
        await child.wait(0)
    assert await child.end() == -signal.SIGKILL
    assert child.pid is None
    assert is_gone(pid)
    child.kill()  # the pid may be reused
    assert await child.end() == -signal.SIGKILL


def test_relative_paths_in_the_environment_are_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"HF_HOME": "hf", "SSL_CERT_FILE": "~/ca.pem", "XDG_CACHE_HOME": "$HOME/c", "HF_TOKEN_PATH": "/t"}
    assert _absolute({**given, "HF_XET_CACHE": "", "NAME": "x"}) == {
        **given,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_XET_CACHE": "",
        "NAME": "x",
    }
