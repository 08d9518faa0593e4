"""`show`, `health` and `version`."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path

import huggingface_hub
import psutil
import pytest

from mlxk_tui import __version__
from mlxk_tui.ops.contract.results import SPEC_VERSION
from tests.headless.conftest import BROKEN, HEALTHY, OTHER
from tests.headless.running import at_terminal, call, headless, shown
from tests.support.hf_cache import HfCache, model_files


def test_show_returns_metadata_or_what_the_flags_select(filled: Path) -> None:
    config = json.loads(model_files()["config.json"])
    plain = call("show", HEALTHY, "--json", hub=filled).data
    assert (plain["metadata"], plain["files"], plain["config"]) == (config, [], None)
    both = call("show", "--files", HEALTHY, "--config", "--json", hub=filled).data
    assert (both["metadata"], both["config"]) == (None, config)
    assert [file["name"] for file in both["files"]] == sorted(model_files())
    assert both["model"] == plain["model"]


def test_show_prints_facts_findings_files_and_config(filled: Path) -> None:
    result = call("show", "truncated", "--files", "--config", hub=filled)
    assert (result.status, result.stderr) == (0, "")
    text = result.stdout
    assert shown(text)[0] == BROKEN
    assert re.search(r"^Quantization +4 bits, groups of 64$", text, re.MULTILINE)
    assert re.search(r"^Context +2,048 tokens$", text, re.MULTILINE)
    assert re.search(r"^Health +unhealthy$", text, re.MULTILINE)
    assert re.search(r"^    error   model\.safetensors is truncated.*\(fix: pull\)$", text, re.MULTILINE)
    assert re.search(r"^config\.json +\d+B +config +[0-9a-f]{12}$", text, re.MULTILINE)
    assert '"model_type": "llama"' in text


def test_show_accepts_a_revision(filled: Path) -> None:
    repo = HfCache(filled).repo(OTHER)
    second = repo.add(model_files(fill=b"\x09", chat=False), refs=["v2"])
    for revision in ("v2", second, second[:6]):
        data = call("show", f"{OTHER}@{revision}", "--json", hub=filled).data
        assert data["model"]["hash"] == second
    assert call("show", OTHER, "--json", hub=filled).data["model"]["hash"] != second
    error = call("show", f"{OTHER}@v3", "--json", hub=filled).error
    assert error["type"] == "revision_not_found"
    assert second in error["available_hashes"]


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("nope", "model_not_found"),
        ("tiny", "ambiguous_match"),
        ("", "validation_error"),
        ("  ", "validation_error"),
        (f"{HEALTHY}@", "validation_error"),
        ("../etc", "validation_error"),
        ("a\x1b[31m", "validation_error"),
        ("a\udcff", "validation_error"),
        ("x" * 500, "validation_error"),
    ],
)
@pytest.mark.parametrize("command", ["show", "health", "rm", "clone"])
def test_invalid_names_are_typed_errors(
    command: str, name: str, type_: str, filled: Path, tmp_path: Path
) -> None:
    more = [str(tmp_path / "copy")] if command == "clone" else []
    result = call(command, "--json", "--", name, *more, hub=filled)
    assert (result.status, result.error["type"]) == (1, type_)
    assert "\x1b" not in call(command, "--", name, *more, hub=filled).stderr
    assert not (tmp_path / "copy").exists()


def test_ambiguous_name_lists_its_matches(filled: Path) -> None:
    error = call("show", "tiny", "--json", hub=filled).error
    assert error["matches"] == ["mlx-community/Tiny-Base-4bit", HEALTHY]
    text = call("show", "tiny", hub=filled).stderr
    assert f"\n  {HEALTHY}\n" in text


def test_health_starts_with_the_summary(filled: Path) -> None:
    result = call("health", hub=filled)
    assert (result.status, result.stderr) == (0, "")
    first, *lines = shown(result)
    healthy = [line for line in lines if line.startswith("healthy   ")]
    unhealthy = [line for line in lines if line.startswith("unhealthy ")]
    assert len(lines) == len(healthy) + len(unhealthy)
    total = len(lines)
    assert first == f"Summary: total {total}, healthy {len(healthy)}, unhealthy {len(unhealthy)}"
    assert any(line.startswith(f"healthy   {HEALTHY} — ") for line in healthy)
    assert any(line.startswith(f"unhealthy {BROKEN} — model.safetensors is truncated") for line in unhealthy)


def test_health_verbose_shows_findings_below_the_model(filled: Path) -> None:
    lines = list(shown(call("health", BROKEN, "--verbose", hub=filled)))
    assert lines[1].startswith(f"unhealthy {BROKEN} — ")
    assert lines[2].startswith("    error   model.safetensors is truncated")


def test_health_exit_code(filled: Path) -> None:
    assert call("health", hub=filled).status == 0
    assert call("health", "--exit-code", hub=filled).status == 1
    assert call("health", "--exit-code", "--json", hub=filled).status == 1
    assert call("health", "--exit-code", "--json", hub=filled).envelope["status"] == "success"
    assert call("health", HEALTHY, "--exit-code", hub=filled).status == 0


def test_verify_finds_a_flipped_bit(hub: Path) -> None:
    repo = HfCache(hub).repo(HEALTHY)
    files = model_files()
    repo.add(files)
    assert call("health", HEALTHY, "--json", hub=hub).data["summary"]["unhealthy_count"] == 0
    healthy = call("health", HEALTHY, "--verify", "--json", hub=hub).data["healthy"][0]
    assert healthy["checksums"]["files"] == len(files)
    blob = repo.blob("model.safetensors", files["model.safetensors"])
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert call("health", HEALTHY, "--json", hub=hub).data["summary"]["unhealthy_count"] == 0
    damaged = call("health", HEALTHY, "--verify", "--json", hub=hub).data["unhealthy"][0]
    assert damaged["checksums"]["mismatched"] == 1
    assert damaged["findings"][0]["code"] == "checksum_mismatch"
    text = headless("health", HEALTHY, "--verify", hub=hub).stdout
    assert re.search(rf"^unhealthy {HEALTHY} — .* \[{len(files)} blobs hashed, \d+ B\]$", text, re.MULTILINE)


def test_verify_shows_a_bar_at_a_terminal_and_ctrl_c_stops_it(hub: Path) -> None:
    repo = HfCache(hub).repo(HEALTHY)
    repo.add(model_files())
    os.truncate(repo.blob("model.safetensors", model_files()["model.safetensors"]), 200_000_000_000)
    with at_terminal("health", HEALTHY, "--verify", hub=hub) as terminal:
        terminal.wait_for("verify")
        terminal.wait_for("GB/s" if "GB/s" in terminal.shown else "B")
        terminal.type("\x03")
        status, text = terminal.finish()
    assert status == 1
    assert "Stopped by the user" in text
    assert "Traceback" not in text


def test_version_lists_the_installed_packages(hub: Path) -> None:
    data = headless("version", "--json", hub=hub).data
    assert data["cli_version"] == __version__
    assert data["json_api_spec_version"] == SPEC_VERSION
    assert data["system"]["python"] == platform.python_version()
    assert data["system"]["huggingface_hub"] == huggingface_hub.__version__
    assert data["system"]["memory_bytes"] == psutil.virtual_memory().total
    assert data["system"]["cache_dir"] == str(hub)
    assert headless("--version", "--json", hub=hub).data == data
    text = call("version", hub=hub).stdout
    assert re.search(rf"^mlxk-headless +{re.escape(__version__)}$", text, re.MULTILINE)
    assert re.search(rf"^JSON API +{re.escape(SPEC_VERSION)}$", text, re.MULTILINE)


def test_version_option_prints_one_line(hub: Path) -> None:
    for arguments in (["--version"],):
        result = headless(*arguments, hub=hub)
        assert (result.status, result.stdout, result.stderr) == (0, f"mlxk-headless {__version__}\n", "")
