"""Random command lines print one valid envelope and never change the cache by mistake."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from mlxk_tui.ops.cache.names import dir_to_name
from mlxk_tui.ops.contract.results import Command
from tests.conftest import SENTINEL
from tests.headless.conftest import BASE, BROKEN, HEALTHY, OTHER, fill
from tests.headless.running import call
from tests.support.hf_cache import tree_of

COMMANDS = sorted(
    command.value for command in Command if command not in {Command.SERVER, Command.SHARE}
)  # which keep running
OPTIONS = [
    *("--all", "--verbose", "-v", "--health", "--files", "--config", "--verify", "--exit-code", "-f"),
    *("--force", "--dry-run", "--branch", "--no-health-check", "--quiet", "--progress", "json", "--json"),
    *("--version", "--help", "-h", "--cache-dir", "--", "-", "--json=1", "--verbose=x", "-fv", "--no-such"),
]
NAMES = [
    HEALTHY,
    BASE,
    OTHER,
    BROKEN,
    f"{HEALTHY}@main",
    f"{HEALTHY}@",
    "tiny",
    "@",
    "..",
    "acme/../x",
    "a//b",
]
FORCES = {"-f", "--force", "-fv"}

hostile = st.text(
    st.characters(codec=None) | st.sampled_from("\x00\x1b\x7f\x9b\u202e\ud800\udcff\n\r\t /\\@-.%{}[]"),
    max_size=12,
)
words = st.one_of(st.sampled_from(COMMANDS), st.sampled_from(OPTIONS), st.sampled_from(NAMES), hostile)


class Playground:
    """A folder with a cache, which is recreated after a deletion."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0
        self.hub = self.fresh()

    def fresh(self) -> Path:
        """Create a new cache and return it."""
        self.made += 1
        self.hub = self.folder / f"hub{self.made}"
        self.hub.mkdir()
        (self.hub / SENTINEL).touch()
        fill(self.hub)
        return self.hub


@pytest.fixture(scope="module")
def playground() -> Iterator[Playground]:
    """A working directory, so that `clone` and `lock` write nowhere else."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="mlxk-argv-") as folder:
        os.chdir(folder)
        yield Playground(Path(folder))
        os.chdir(before)


def _harmless(word: str) -> bool:
    """Return whether a word, used as a path, stays inside the playground."""
    return not (word.startswith(("/", "~", "$")) or ".." in word) or word in NAMES


def _names(hub: Path) -> set[str]:
    return {name for entry in os.listdir(hub) if (name := dir_to_name(entry))}


@pytest.mark.slow
@settings(max_examples=80)
@given(
    command=st.sampled_from(["", *COMMANDS]),
    before=st.lists(st.sampled_from(OPTIONS), max_size=1),
    arguments=st.lists(words.filter(_harmless), max_size=4),
    place=st.integers(0, 5),
)
def test_any_command_line_prints_one_valid_envelope(
    command: str, before: list[str], arguments: list[str], place: int, playground: Playground
) -> None:
    argv = [*before, *([command] if command else []), *arguments]
    end = argv.index("--") if "--" in argv else len(argv)
    argv.insert(min(place, end), "--json")
    hub = playground.hub
    tree, names = tree_of(hub), _names(hub)

    result = call(*argv, hub=hub)

    envelope = result.envelope
    assert result.stderr == "" or "--progress" in argv
    error = envelope["error"]
    assert result.status == (0 if error is None else 2 if error["type"] == "command_error" else 1) or (
        "--exit-code" in argv and result.status == 1
    )
    assert error is None or error["type"] != "internal_error", envelope
    if tree_of(hub) != tree:
        playground.fresh()
        assert envelope["command"] in {"rm", "prune"}, argv
        assert envelope["status"] == "success", argv
        if envelope["command"] == "rm":
            removed = names - _names(hub)
            assert FORCES & set(argv) or removed <= set(argv) or f"{HEALTHY}@main" in argv, (argv, removed)
        else:
            assert FORCES & set(argv), argv


@pytest.mark.slow
@settings(max_examples=40)
@given(
    command=st.sampled_from(["", *COMMANDS]),
    arguments=st.lists(words.filter(_harmless).filter(lambda word: word not in FORCES), max_size=3),
)
def test_no_command_line_prints_control_characters(
    command: str, arguments: list[str], playground: Playground
) -> None:
    result = call(*([command] if command else []), *arguments, hub=playground.hub)
    assert result.status in {0, 1, 2}
    raw = {char for char in result.stdout + result.stderr if ord(char) < 32 or 127 <= ord(char) < 160}
    assert raw <= {"\n"}, raw
    assert "Traceback" not in result.stderr
    assert "Internal error" not in result.stderr
    if not (playground.hub / "models--mlx-community--Tiny-Instruct-4bit").exists():
        playground.fresh()  # `rm` with an exact name
