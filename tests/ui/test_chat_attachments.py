"""Detection of file names in pastes and prompts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings, strategies as st

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ui.chat.attachments import MAX_BYTES, mentioned_files, paths_in_paste, read_attachment

NAMES = [
    "notes.txt",
    "my notes.txt",
    "it's.md",
    'a "b".py',
    "back\\slash",
    "naïve 日本.txt",
    "100%.txt",
    "a#b?c",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with unusual file names; only `file` writes to it."""
    made = tmp_path_factory.mktemp("drag ged")
    for name in NAMES:
        (made / name).write_text(name)
    (made / "sub").mkdir()
    return made


def backslashed(path: str) -> str:
    """Return a path escaped like a terminal does."""
    return "".join(f"\\{one}" if one in " \\'\"#?&()*[]$`!;<>|~" else one for one in path)


WAYS: dict[str, Callable[[str], str]] = {
    "quoted": shlex.quote,
    "escaped": backslashed,
    "address": lambda path: "file://" + quote(path),
    "local address": lambda path: "file://localhost" + quote(path),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", [*WAYS, "bare"])
def test_file_is_found_in_any_notation(folder: Path, name: str, way: str) -> None:
    path = str(folder / name)
    written = path if way == "bare" else WAYS[way](path)
    assert paths_in_paste(f" {written}\n") == [path]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6), st.data())
def test_several_files_are_found_in_order(folder: Path, names: list[str], data: st.DataObject) -> None:
    paths = [str(folder / name) for name in names]
    ways = [data.draw(st.sampled_from(sorted(WAYS))) for _ in names]
    # An apostrophe is not escaped in a URL, but in a shell.
    words = [
        WAYS[way](path).replace("'", "%27") if "address" in way else WAYS[way](path)
        for way, path in zip(ways, paths, strict=True)
    ]
    assert paths_in_paste(data.draw(st.sampled_from([" ", "\n", "  "])).join(words)) == paths


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "notes.txt",
        "./notes.txt",
        "{folder}",
        "{folder}/sub",
        "{folder}/missing.txt",
        "{folder}/notes.txt {folder}/missing.txt",
        "{folder}/notes.txt and more",
        "Look at {folder}/notes.txt",
        "'{folder}/notes.txt",
        "{folder}/notes.txt\0",
        "file://{folder}/missing.txt",
        "file://elsewhere{folder}/notes.txt",
        "https://example.org{folder}/notes.txt",
        "file://[",
        "file://[x]/y",
        "file:///%00",
        "file://",
        "~nobody-of-this-name/notes.txt",
        "~\ud800/notes.txt",
        "/\ud800",
        "/" + "x" * 3_000,
        "/usr/bin is a folder",
        "/etc/passwd " * 400,
        "/",
    ],
)
def test_other_pastes_are_text(folder: Path, text: str) -> None:
    assert paths_in_paste(text.replace("{folder}", str(folder).replace(" ", "\\ "))) == []


def test_file_in_the_home_directory_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert paths_in_paste("~/notes.txt") == [str(folder / "notes.txt")]
    assert mentioned_files("@~/notes.txt") == [str(folder / "notes.txt")]


HOSTILE = st.text(
    st.one_of(st.sampled_from("@~/\\\"' \n:[]%#?."), st.characters(), st.sampled_from("\0\ud800\udc80")),
    max_size=40,
)


@settings(max_examples=300)
@given(st.sampled_from(["", "/", "~", "file://", "@", "@~", '@"', "x @"]), HOSTILE)
def test_any_paste_gives_only_existing_files(begin: str, text: str) -> None:
    for path in (*paths_in_paste(begin + text), *mentioned_files(begin + text)):
        assert os.path.isabs(path)
        assert os.path.isfile(path)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("What is in @notes.txt?", ["notes.txt"]),
        ("@notes.txt", ["notes.txt"]),
        ("See @notes.txt, @a#b?c; and @notes.txt.", ["notes.txt", "a#b?c"]),
        ("first\n@notes.txt\nlast", ["notes.txt"]),
        ('Compare @"my notes.txt" with @./notes.txt!', ["my notes.txt", "notes.txt"]),
        ("(as said in @notes.txt).", ["notes.txt"]),
        ("@100%.txt...", ["100%.txt"]),
        ("@sub/../notes.txt", ["notes.txt"]),
        ("mail me@notes.txt", []),
        ("x@notes.txt and @@notes.txt", []),
        ("@my notes.txt", []),
        ("@sub @missing.txt @ @/ @. @..", []),
        ("@notes.txt\0", []),
        ("notes.txt", []),
        ('@"my notes.txt', []),
        ("@~\0/x @~\ud800/x", []),
    ],
)
def test_mentions_are_parsed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, names: list[str]
) -> None:
    monkeypatch.chdir(folder)
    assert mentioned_files(text) == [str(folder / name) for name in names]


@settings(max_examples=60)
@given(st.sampled_from(NAMES), st.text(".,;:!?)", max_size=4), st.sampled_from(["", "Look ", "a\n", "a\t"]))
def test_mention_ends_before_punctuation_and_needs_a_word_boundary(
    folder: Path, name: str, punctuation: str, before: str
) -> None:
    path = str(folder / name)
    if '"' not in name:
        assert mentioned_files(f'{before}@"{path}"{punctuation} and so on') == [path]
    assert mentioned_files(f'{before}x@"{path}"{punctuation}') == []


def test_only_text_of_limited_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfhello\r\n")
    assert read_attachment(str(tmp_path / "bom.txt")).text == "hello\r\n"
    (tmp_path / "full.txt").write_bytes(b"x" * MAX_BYTES)
    assert len(read_attachment(str(tmp_path / "full.txt")).text) == MAX_BYTES
    (tmp_path / "large.txt").write_bytes(b"x" * (MAX_BYTES + 1))
    (tmp_path / "latin.txt").write_bytes(b"na\xefve")
    (tmp_path / "zero.txt").write_bytes(b"a\0b")
    os.mkfifo(tmp_path / "pipe")
    for name in ("large.txt", "latin.txt", "zero.txt", "pipe", "", "missing\x1b[2J"):
        with pytest.raises(OpError) as caught:
            read_attachment(f"{tmp_path}/{name}")
        assert caught.value.type is ErrorType.VALIDATION_ERROR
        assert caught.value.message.isprintable()
