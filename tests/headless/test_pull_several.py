"""`pull` of several models, of lists, and of parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlxk_tui.demo.hub import LocalHub
from tests.headless.running import call, headless
from tests.support.pulling import FILES, NAME, content_of

OTHER = "org/Other"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as server:
        server.add_repo(NAME, FILES)
        server.add_repo(OTHER, FILES)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_several_models_have_a_result_each(server: LocalHub, hub: Path) -> None:
    result = headless("pull", NAME, "org/missing", OTHER, "--json", hub=hub)
    assert result.status == 1
    assert result.error["type"] == "access_denied"
    data = result.envelope["data"]
    assert [model["download_status"] for model in data["models"]] == [
        "success",
        "access_denied",
        "success",
    ]
    assert (data["count"], data["failed_count"]) == (3, 1)
    assert content_of(hub, OTHER) == FILES
    again = call("pull", NAME, OTHER, hub=hub)
    assert again.status == 0
    assert [line.partition(" ")[0] for line in again.stdout.splitlines()] == ["pull:"] * 3
    assert again.stdout.splitlines()[-1] == "pull: 0 models pulled, 2 already complete."


def test_text_names_what_was_pulled_before_the_error(server: LocalHub, hub: Path) -> None:
    result = call("pull", "org/missing", NAME, hub=hub)
    assert result.status == 1
    assert result.stdout.startswith(f"pull: Pulled {NAME} at ")
    assert result.stderr.startswith("Error: 1 of 2 models not pulled. org/missing: ")


def test_list_of_models_is_read_from_a_file(server: LocalHub, hub: Path, tmp_path: Path) -> None:
    path = tmp_path / "models.txt"
    path.write_text(f"\ufeff# for the demo\r\n\n  {NAME}  # small\r\n", encoding="utf-8")
    result = call("pull", "--file", str(path), "--json", hub=hub)
    assert result.status == 0
    assert [model["model"] for model in result.data["models"]] == [NAME]
    assert call("pull", OTHER, "--file", str(path), "--json", hub=hub).data["count"] == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names no model"),
        (b"# none\n", "names no model"),
        (b"\xff\xfe", "is not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_unusable_list_is_rejected(
    server: LocalHub, hub: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "models.txt"
    if content is not None:
        path.write_bytes(content)
    result = call("pull", "--file", str(path), "--json", hub=hub)
    assert (result.status, result.error["type"]) == (1, "validation_error")
    assert words in result.error["message"]


def test_model_or_list_is_required(hub: Path) -> None:
    result = call("pull", "--json", hub=hub)
    assert (result.status, result.error["type"]) == (2, "command_error")
    assert "--file" in result.error["message"]


def test_patterns_select_files(server: LocalHub, hub: Path) -> None:
    data = call("pull", NAME, "--include", "*.json", "--exclude", "tok*", "--json", hub=hub).data
    expected = {name for name in FILES if name.endswith(".json") and not name.startswith("tok")}
    assert (data["partial"], data["files_count"]) == (True, len(expected))
    shown = call("show", NAME, "--json", hub=hub).data["model"]
    assert (shown["health"], shown["runtime_compatible"]) == ("healthy", False)
    assert shown["reason"].startswith("Partial: ")
    assert call("pull", NAME, "--json", hub=hub).data["partial"] is False
    assert content_of(hub) == FILES
