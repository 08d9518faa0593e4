"""Ignored files of a push: patterns with the semantics of git, and no slow matching."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.push.files import list_files
from mlxk_tui.ops.push.ignore import IgnorePatterns
from tests.support.waiting import patience

FILES = (
    "README.md", "a.log", "b.LOG", "keep.log", "deep/a.log", "deep/er/a.log", "deep/er/b.txt", "docs/x.md",
    "docs/api/y.md", "docs/api/z.txt", "build/out.bin", "src/build/out.bin", "src/build.py", "a b.txt",
    "trail ", "#hash", "!bang", "x1.txt", "x2.txt", "x10.txt", "xy.txt", "[odd].txt", "back\\slash.txt",
    "one/two/three/f", "one/f", "star*file", "ü/ß.txt", ".hidden", "tmp/.keep", "tmp/other", "a-b.txt",
    "logs/debug/x", "logs/x", "foo/bar", "bar/foo/bar",
)  # fmt: skip
PATTERNS = (
    "*.log", "*.log\n!keep.log", "/a.log", "deep/", "deep/*", "deep/**", "**/a.log", "deep/**/a.log",
    "build", "build/", "/build/", "src/build", "docs/*.md", "docs/**/*.md", "**/api/", "**/api/**", "x?.txt",
    "x[0-9].txt", "x[!0-9].txt", "x[^0-9].txt", "x[0-9]*.txt", "\\#hash", "#hash", "\\!bang", "!bang",
    "trail\\ ", "trail ", "a b.txt", "[[]odd].txt", "[odd].txt", "[]odd[].txt", "back\\\\slash.txt",
    "one/**/f", "one/*/f", "/**/f", "star\\*file", "ü/", "*/ß.txt", ".*", "tmp/*\n!tmp/.keep",
    "tmp/\n!tmp/.keep",
    "*", "/*\n!/docs/", "**", "**/", "a[a-", "a\\", "x[[:digit:]].txt", "[[:upper:]]*", "x[[:nope:]].txt",
    "a[+--]b.txt", "a[a\\-z]b.txt", "logs/**/x", "foo/bar", "/foo/bar", "**/foo/bar", "f*/b*r", "*.log   ",
    "   ", "*.txt\r", "***.log", "docs/***/y.md", "x**.txt", "!*.md", "*.md\n!README.md\nREADME.*",
    "[z-a]*", "[!z-a]*", "docs/\t", "*\n!*/\n!*.md", "*.log\ndeep/*\n!deep/er", "k*p.log", "?eep.log", "kee",
)  # fmt: skip


def fill(folder: Path) -> None:
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def listed(folder: Path) -> set[str]:
    return {file.path for file in list_files(folder, threading.Event()).files}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ignored")
    fill(folder)
    try:
        subprocess.run(["git", "init", "-q", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not there to compare with")
    return folder


@pytest.mark.parametrize("lines", PATTERNS, ids=ascii)
def test_patterns_have_the_semantics_of_git(workspace: Path, lines: str) -> None:
    ignore = workspace / ".hfignore"
    ignore.write_bytes((lines + "\n").encode())
    told = subprocess.run(
        ["git", "-c", "core.quotePath=off", "ls-files", "-z", "--others", "--exclude-from=.hfignore"],
        cwd=workspace, capture_output=True, check=True, env={**os.environ, "GIT_CONFIG_NOSYSTEM": "1"},
    )  # fmt: skip
    kept = {name for name in told.stdout.decode().split("\0") if name} - {".hfignore"}
    assert listed(workspace) == kept


def test_some_files_are_always_ignored(tmp_path: Path) -> None:
    left_out = (
        ".git/config", ".cache/huggingface/download/x.lock", "sub/.git", "sub/.DS_Store", ".DS_Store", ".env",
        "__pycache__/a.pyc", "lib/__pycache__/b.pyc", "a.py~", ".model.json.swp", ".hfignore", "#b#",
    )  # fmt: skip
    for name in (*left_out, "config.json", "sub/model.safetensors", ".gitattributes"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert listed(tmp_path) == {".gitattributes", "config.json", "sub/model.safetensors"}
    (tmp_path / ".hfignore").write_text("sub/\n!.env\n!.git\n!.cache\n")
    assert listed(tmp_path) == {".env", ".gitattributes", "config.json"}
    (tmp_path / ".gitignore").write_text("*.json\n")  # the hub ignores these regardless of .hfignore
    (tmp_path / ".hfignore").write_text("!config.json\n")
    assert listed(tmp_path) == {".gitattributes", ".gitignore", "sub/model.safetensors"}


def test_hostile_patterns_do_not_hang(tmp_path: Path) -> None:
    lines = [
        "*a" * 200 + "b",
        "**/" * 200 + "b",
        "/**/a" * 100 + "/b",
        "[a-z]*" * 100 + "!",
        "?*" * 200 + "b",
    ]
    patterns = IgnorePatterns(lines * 10)
    with patience():  # a backtracking matcher would not end
        assert not patterns.ignores("a" * 255, folder=False)
        assert not patterns.ignores("/".join("a" * 450), folder=False)
    assert patterns.ignores("a" * 254 + "b", folder=False)


@pytest.mark.parametrize(
    "line",
    ["*" + "a" * 120 + "c?", "*" + "?" * 127 + "c?", "*a" * 100 + "b?", "/**/" + "a/" * 100 + "b", "?" * 900],
    ids=lambda line: f"{line[:4]}..{line[-4:]}",
)
def test_long_ignore_files_match_quickly(line: str) -> None:
    patterns = IgnorePatterns([line] * min(1_000, 255_000 // len(line)))
    begin = time.process_time()
    assert not patterns.ignores("a" * 255, folder=False)
    assert not patterns.ignores("/".join("a" * 450), folder=False)
    assert time.process_time() - begin < 2  # backtracking took up to 20 seconds


SETS = "\n".join("".join(f"[{chr(0x4E00 + row * 100 + n)}x]" for n in range(100)) for row in range(11))


@pytest.mark.parametrize("content", [b"*.x\n" * 2_000, b"x" * 5_000, b"\n" * 300_000, SETS.encode()])
def test_huge_ignore_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".hfignore").write_bytes(content)
    with pytest.raises(OpError, match=r"\.hfignore is too long") as refused:
        listed(tmp_path)
    assert refused.value.type is ErrorType.VALIDATION_ERROR


def test_ignore_file_must_be_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".hfignore")
    with pytest.raises(OpError, match="not a regular file"):
        listed(tmp_path)
    (tmp_path / ".hfignore").unlink()
    (tmp_path / ".hfignore").symlink_to("/etc/passwd")
    with pytest.raises(OpError, match="not a regular file"):
        listed(tmp_path)


def test_ignore_file_may_have_a_bom_and_invalid_utf8(tmp_path: Path) -> None:
    (tmp_path / ".hfignore").write_bytes(b"\xef\xbb\xbf*.log\n\xff*\n")
    for name in (b"a.log", b"\xff1", b"b.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"")
    assert listed(tmp_path) == {"b.txt"}
