"""File names of a hostile hub are rejected before anything is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.download.download import DownloadSource, download
from mlxk_tui.ops.download.file_names import check_files, check_source
from mlxk_tui.ops.hub.remote_files import RemoteFile

SOURCE = DownloadSource("https://hub.example", "org/model", "a" * 40)


def file(path: str, *, size: int = 1, etag: str = "b" * 64) -> RemoteFile:
    return RemoteFile(path, size, etag, "sha256" if len(etag) == 64 else "git-sha1")


@pytest.mark.parametrize(
    "path",
    [
        "", ".", "..", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", "a/./b", "a\0b", "a\nb",
        "a\x1b[2Jb", "a\x7f", "a\x9bb", "a\\b", "..\\x", "x" * 256, "ä" * 128, "/".join("abcdefghijklmnopq"),
        "/".join(["y" * 100] * 11), "a\udc80",
    ],
)  # fmt: skip
async def test_path_outside_the_folder_is_rejected(path: str, tmp_path: Path) -> None:
    with pytest.raises(OpError, match="Nothing was downloaded") as caught:
        await download(SOURCE, [file("good"), file(path)], tmp_path / "models--org--model")
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "pair",
    [
        ("a", "a"), ("README.md", "readme.md"), ("ß", "ss"), ("é", "e\u0301"), ("a", "a/b"),
        ("a/b", "a"), ("A/b", "a/B"), ("dir/x", "DIR"), ("a/b/c", "A/B"),
    ],
)  # fmt: skip
def test_conflicting_names_are_rejected(pair: tuple[str, str]) -> None:
    with pytest.raises(OpError, match=r"same name|folder that is also a file"):
        check_files([file(path) for path in pair])


@pytest.mark.parametrize(
    "bad",
    [
        replace(file("x"), etag="../../x"),
        replace(file("x"), etag="B" * 64),
        replace(file("x"), etag="b" * 40),
        replace(file("x"), algorithm="git-sha1"),
        replace(file("x"), algorithm="md5"),  # type: ignore[arg-type]  # what a hub could make us believe
        file("x", size=-1),
        file("x", size=1 << 60),
        file("x", size=2),  # the same etag with another size
    ],
)
def test_invalid_checksums_and_sizes_are_rejected(bad: RemoteFile) -> None:
    with pytest.raises(OpError, match=r"checksum|size"):
        check_files([file("good"), bad])


def test_endless_file_list_is_rejected() -> None:
    with pytest.raises(OpError, match="50,000 files"):
        check_files([file(str(number)) for number in range(50_001)])


def test_unusual_but_valid_names_are_accepted() -> None:
    check_files([file(path) for path in ("a/b", "a/c", "A b.txt", ".gitattributes", "...", "100%", "日本/é")])


@pytest.mark.parametrize(
    "bad",
    [
        replace(SOURCE, endpoint="ftp://hub.example"),
        replace(SOURCE, endpoint="hub.example"),
        replace(SOURCE, endpoint="http://hub.example:99999"),
        replace(SOURCE, repo="org/../x"),
        replace(SOURCE, repo="/etc"),
        replace(SOURCE, repo="org/model?x"),
        replace(SOURCE, commit="main"),
        replace(SOURCE, commit="../" + "a" * 37),
        replace(SOURCE, token="hf_x\r\nHost: evil"),
    ],
)
def test_invalid_source_is_rejected(bad: DownloadSource) -> None:
    with pytest.raises(OpError) as caught:
        check_source(bad)
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert "hf_x" not in caught.value.message


def test_token_is_not_shown() -> None:
    assert "hf_secret" not in repr(replace(SOURCE, token="hf_secret"))
