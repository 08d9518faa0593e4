"""`list`: the JSON contains everything, the table what the flags select."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.headless.conftest import BASE, BROKEN, HEALTHY, OTHER, PYTORCH, RED, UNDECODABLE
from tests.headless.running import at_terminal, call, headless, shown
from tests.support.hf_cache import HfCache, model_files

LONG = "mlx-community/A-Model-Whose-Name-Is-So-Long-That-No-Narrow-Terminal-Holds-It-Instruct-4bit"


def _rows(text: str) -> list[list[str]]:
    """Split a table at gaps of two or more spaces."""
    return [re.split(r"\s{2,}", line) for line in text.splitlines() if line]


@pytest.mark.parametrize(
    "flags", [[], ["--all"], ["--verbose"], ["--health"], ["--all", "--verbose", "--health"]]
)
def test_flags_do_not_change_the_json(flags: list[str], filled: Path) -> None:
    assert call("list", *flags, "--json", hub=filled).stdout == call("list", "--json", hub=filled).stdout


def test_pattern_matches_part_of_the_name_case_insensitively(filled: Path) -> None:
    data = call("list", "TINY-", "--json", hub=filled).data
    assert [model["name"] for model in data["models"]] == [BASE, HEALTHY]
    assert data["count"] == 2
    assert call("list", "no such", "--json", hub=filled).data == {"models": [], "count": 0}


def test_default_table_has_mlx_chat_models_without_organization(filled: Path) -> None:
    result = headless("list", hub=filled)
    assert result.status == 0
    header, *rows = _rows(result.stdout)
    assert header == ["Name", "Hash", "Size", "Modified", "Type"]
    assert [row[0] for row in rows] == [OTHER, "Tiny-Instruct-4bit", "Truncated-Instruct-4bit"]
    assert rows[1] == ["Tiny-Instruct-4bit", rows[1][1], "777 B", "2025-08-30", "chat"]
    assert re.fullmatch("[0-9a-f]{7}", rows[1][1])
    assert re.fullmatch(r"\d more, not MLX or not chat: --all shows everything\.\n", result.stderr)


def test_verbose_lists_all_mlx_models_with_full_names(filled: Path) -> None:
    result = call("list", "--verbose", hub=filled)
    header, *rows = _rows(result.stdout)
    assert header == ["Name", "Hash", "Size", "Modified", "Framework", "Type"]
    assert {row[0] for row in rows} == {OTHER, HEALTHY, BASE, BROKEN}
    assert {row[4] for row in rows} == {"MLX"}
    assert result.stderr.endswith(" more: --all shows every framework.\n")


def test_all_lists_everything(filled: Path) -> None:
    result = call("list", "--all", hub=filled)
    header, *rows = _rows(result.stdout)
    assert header[4] == "Framework"
    assert {OTHER, HEALTHY, BASE, BROKEN, PYTORCH, RED} <= {row[0] for row in rows}
    assert result.stderr == ""


def test_health_adds_a_column_and_a_note_about_models_that_cannot_run(hub: Path) -> None:
    cache = HfCache(hub)
    cache.repo(HEALTHY).add(model_files(config={"model_type": "no-such-architecture"}))
    files = model_files()
    cache.repo(BROKEN).add({**files, "model.safetensors": b""})
    result = call("list", "--health", hub=hub)
    header, *rows = _rows(result.stdout)
    assert header[-1] == "Health"
    assert [row[-1] for row in rows] == ["healthy*", "unhealthy"]
    assert result.stderr.startswith("* Intact, but can't run here")


def test_health_with_verbose_shows_the_reason(filled: Path) -> None:
    header, *rows = _rows(call("list", "--health", "--verbose", hub=filled).stdout)
    assert header[-3:] == ["Integrity", "Runtime", "Reason"]
    broken = next(row for row in rows if row[0] == BROKEN)
    assert broken[-3:-1] == ["unhealthy", "no"]
    assert "model.safetensors is truncated" in broken[-1]


def test_empty_cache_prints_the_next_step(hub: Path) -> None:
    for root in (hub, hub / "not-there-yet"):
        result = call("list", hub=root)
        assert result.status == 0
        assert result.stdout.startswith("No models are cached yet. Pull one")
        assert result.stderr == ""


def test_pattern_without_visible_matches_prints_a_message(filled: Path) -> None:
    assert call("list", "nope", hub=filled).stdout == "No cached model matches 'nope'.\n"
    result = call("list", "Tiny-Base", hub=filled)
    assert (result.stdout, result.stderr[:6]) == ("", "1 more")


def test_hostile_names_are_escaped(filled: Path) -> None:
    HfCache(filled).repo("a/[bold red]x[/] :smile:").add(model_files())
    for flags in (["--all"], ["--all", "--json"], ["--all", "--health", "--verbose"]):
        result = call("list", *flags, hub=filled)
        assert "\x1b" not in result.stdout + result.stderr
    names = [row[0] for row in _rows(call("list", "--all", hub=filled).stdout)]
    assert RED in names
    assert "a/[bold red]x[/] :smile:" in names
    if any(UNDECODABLE in name for name in names):  # if the file system allows such names
        assert UNDECODABLE in names
    with at_terminal("list", "--all", hub=filled) as terminal:
        status, text = terminal.finish()
    assert status == 0
    assert "\x1b[31m" not in text.replace("\\x1b[31m", "")
    assert "[bold red]x[/] :smile:" in text


def test_piped_names_are_never_cut(hub: Path) -> None:
    HfCache(hub).repo(LONG).add(model_files())
    result = headless("list", "--health", "--verbose", hub=hub, env={"COLUMNS": "20"})
    assert len(shown(result)) == 2
    assert LONG in result.stdout
    assert all(line == line.rstrip() for line in shown(result))


@pytest.mark.parametrize("columns", [20, 34, 50, 80, 200])
def test_terminal_cuts_long_names_in_the_middle_without_wrapping(columns: int, hub: Path) -> None:
    HfCache(hub).repo(LONG).add(model_files())
    with at_terminal("list", hub=hub, columns=columns, env={"NO_COLOR": "1"}) as terminal:
        status, text = terminal.finish()
    assert status == 0
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()]
    assert len(lines) == 2
    assert all(len(line) <= columns for line in lines)
    name = lines[1].split("  ")[0].rstrip()
    whole = LONG.removeprefix("mlx-community/")
    if columns == 200:
        assert name == whole
    else:
        start, end = name.split("…")
        assert whole.startswith(start)
        assert whole.endswith(end)


def test_colors_only_at_a_terminal_and_without_no_color(filled: Path) -> None:
    assert "\x1b[" not in headless("list", "--health", hub=filled, env={"FORCE_COLOR": "1"}).stdout
    with at_terminal("list", "--health", hub=filled) as terminal:
        assert re.search(r"\x1b\[3[1-3]m", terminal.finish()[1])
    with at_terminal("list", "--health", hub=filled, env={"NO_COLOR": "1"}) as terminal:
        assert not re.search(r"\x1b\[(3[1-7]|9[0-7])m", terminal.finish()[1])
