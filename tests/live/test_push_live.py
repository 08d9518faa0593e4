"""`push` to the real hub (opt-in: -m live_push, or -m wet).

Needs MLXK2_ENABLE_EXPERIMENTAL_PUSH=1, MLXK2_LIVE_PUSH=1, HF_TOKEN (with write access), MLXK2_LIVE_REPO
(`org/model`, an existing private repo) and MLXK2_LIVE_WORKSPACE (an absolute path). An error of the hub skips
the test with its message, because network, token and quota are not part of the program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.headless.running import checked
from tests.support.hf_cache import tree_of

pytestmark = [pytest.mark.live_push, pytest.mark.wet]

SWITCHES = ("MLXK2_ENABLE_EXPERIMENTAL_PUSH", "MLXK2_LIVE_PUSH")
VALUES = ("HF_TOKEN", "MLXK2_LIVE_REPO", "MLXK2_LIVE_WORKSPACE")
NO_OP = "No files have been modified"


@pytest.fixture
def workspace() -> Path:
    """Return the folder to push; skip if a variable is missing."""
    missing = [f"{name}=1" for name in SWITCHES if os.environ.get(name) != "1"]
    missing += [name for name in VALUES if not os.environ.get(name, "").strip()]
    if missing:
        pytest.skip(f"set {', '.join(missing)}")
    folder = Path(os.environ["MLXK2_LIVE_WORKSPACE"])
    if not folder.is_absolute() or not folder.is_dir():
        pytest.skip(f"MLXK2_LIVE_WORKSPACE is not the absolute path of a folder: {folder}")
    return folder


def push(workspace: Path, *options: str) -> dict[str, Any]:
    """Return `data` of a push; skip with the hub's message on an error."""
    result = subprocess.run(
        [sys.executable, "-m", "mlxk_tui_headless", "push", str(workspace), os.environ["MLXK2_LIVE_REPO"],
         "--private", "--json", *options],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=1800, check=False,
    )  # fmt: skip
    envelope = checked(result.stdout)
    assert os.environ["HF_TOKEN"] not in result.stdout + result.stderr
    assert result.stderr == ""
    if envelope["status"] == "error":
        assert result.returncode == 1
        pytest.skip(f"the hub or the way there: {json.dumps(envelope['error'])}")
    assert result.returncode == 0
    data: dict[str, Any] = envelope["data"]
    return data


def test_second_push_finds_nothing_to_do(workspace: Path) -> None:
    before = tree_of(workspace)
    planned = push(workspace, "--dry-run")
    done = push(workspace)
    assert done["repo_id"] == os.environ["MLXK2_LIVE_REPO"]
    assert (done["branch"], done["created_repo"], done["experimental"]) == ("main", False, True)
    assert done["no_changes"] == planned["no_changes"]
    if done["no_changes"]:
        assert (done["commit_sha"], done["commit_url"], done["uploaded_files_count"]) == (None, None, 0)
    else:
        assert done["commit_sha"] in done["commit_url"]
        assert done["change_summary"] == planned["change_summary"]
        assert done["uploaded_files_count"] == sum(done["change_summary"].values()) > 0
    again = push(workspace)
    assert (again["no_changes"], again["uploaded_files_count"], again["commit_sha"]) == (True, 0, None)
    assert NO_OP in again["message"]
    assert any(NO_OP in line for line in again["hf_logs"])
    assert tree_of(workspace) == before
