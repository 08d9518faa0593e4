"""Splitting an answer into pieces, independent of chunking, and copying code unchanged."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from mlxk_tui.ui.chat.transcript.markdown_pieces import (
    CodeBlock,
    MarkdownPiece,
    MarkdownSplitter,
    code_blocks,
    split,
)

LONG = 1_400
"""Characters from which a line is cut."""
LINES = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "```",
            "```py",
            "~~~",
            "````",
            "  ```",
            "    ```",
            "- a",
            "1. b",
            "# c",
            "    d",
            "> e",
            "|f|g|",
        ]
    ),
    st.text("ab `~-#\t*é🙂", max_size=12),
    st.builds(
        lambda unit, count, end: (unit * count)[:count] + end,
        st.sampled_from(["x", "word ", "`", "- ", "  y", "~"]),
        st.integers(600, 3_200),
        st.sampled_from(["", " ", "   ", "```", "z"]),
    ),
)
TEXTS = st.lists(LINES, max_size=40).map("\n".join)


def fed(text: str, cuts: list[int]) -> MarkdownSplitter:
    """Return a splitter after feeding it a text in parts that end at these positions."""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    splitter = MarkdownSplitter()
    for begin, end in pairwise(places):
        splitter.feed(text[begin:end])
    return splitter


def copied(pieces: list[MarkdownPiece]) -> list[str]:
    """Return the text of each code block without line breaks."""
    blocks: dict[int, str] = {}
    for piece in pieces:
        if piece.code:
            blocks[piece.block] = blocks.get(piece.block, "") + piece.text.replace("\n", "")
    return list(blocks.values())


@settings(max_examples=150)
@given(TEXTS, st.lists(st.integers(0, 100_000), max_size=30))
def test_pieces_do_not_depend_on_chunking(text: str, cuts: list[int]) -> None:
    assert fed(text, cuts).pieces() == split(text)


@settings(max_examples=40)
@given(st.lists(LINES, max_size=8).map("\n".join).map(lambda text: text[:3_000]))
def test_finished_pieces_never_change(text: str) -> None:
    splitter = MarkdownSplitter()
    before: list[MarkdownPiece] = []
    for character in text:
        splitter.feed(character)
        assert splitter.done[: len(before)] == before
        before = list(splitter.done)
        splitter.rest()  # reading the pieces changes nothing
    assert splitter.pieces() == split(text)


@settings(max_examples=100)
@given(TEXTS)
def test_pieces_have_a_limited_size_and_lose_no_text(text: str) -> None:
    pieces = split(text)
    assert all(len(piece.text) <= 3 * LONG for piece in pieces)
    assert [block.text.replace("\n", "") for block in code_blocks(text)] == copied(pieces)
    if "```" in text or "~~~" in text:  # what stands behind a fence is not shown
        return
    kept = "".join("".join(piece.text.split()) for piece in pieces)
    letters = [character for character in text if character in "xyzé🙂"]
    assert [character for character in kept if character in "xyzé🙂"] == letters


CODE = st.lists(
    st.one_of(
        st.text("ab =()\t#é", max_size=20),
        st.builds(
            lambda unit, count: unit * count, st.sampled_from(["x", "ab ", "  "]), st.integers(300, 2_000)
        ),
    ),
    min_size=1,
    max_size=60,
).map("\n".join)


@settings(max_examples=80)
@given(CODE, st.booleans())
def test_code_is_copied_unchanged(code: str, closed: bool) -> None:
    if not closed:
        code = f"{code}\nend"  # a last line that is not finished
    ending = "\n```\nAnd then." if closed else ""
    assert code_blocks(f"Look:\n\n```python title\n{code}{ending}") == [CodeBlock("python", code)]


def test_long_line_of_code_is_wrapped_and_copied_unchanged() -> None:
    line = "    data = '" + "0123456789 " * 400 + "'"
    for ending in ("", "\n", "\nnext\n```\n"):
        text = f"```\n{line}{ending}"
        assert len(split(text)) > 3
        assert max(len(piece.text) for piece in split(text)) <= LONG
        (block,) = code_blocks(text)
        assert block.text.split("\n")[0] == line


def test_rest_of_a_long_line_does_not_end_the_code_block() -> None:
    code = "x" * LONG + "```"
    assert code_blocks(f"```\n{code}\nmore\n```\n") == [CodeBlock("", f"{code}\nmore")]
    assert code_blocks(f"```\n{code}") == [CodeBlock("", code)]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("", []),
        ("`` `not one` ``", []),
        ("```", []),  # half a fence
        ("```\n", [CodeBlock("", "")]),
        ("```py\nx", [CodeBlock("py", "x")]),
        ("```py\nx\n``", [CodeBlock("py", "x\n``")]),
        ("```py\nx\n```", [CodeBlock("py", "x")]),
        ("~~~\n```\n~~~", [CodeBlock("", "```")]),
        ("````\n```\n````\n```sh\nls\n```", [CodeBlock("", "```"), CodeBlock("sh", "ls")]),
        ("- item\n\n    ```js\n    a\n      b\n    ```", [CodeBlock("js", "a\n  b")]),
        ("text\n\n    ```\n    a", []),
    ],
)
def test_fences_are_recognized(text: str, blocks: list[CodeBlock]) -> None:
    assert code_blocks(text) == blocks


def test_partial_fence_is_not_shown() -> None:
    splitter = MarkdownSplitter()
    splitter.feed("Look:\n``")
    assert [piece.text for piece in splitter.pieces()] == ["Look:\n``"]
    splitter.feed("`py")
    assert [piece.text for piece in splitter.pieces()] == ["Look:"]
    splitter.feed("thon\nx")
    assert [(piece.text, piece.code) for piece in splitter.pieces()] == [("Look:", False), ("x", True)]
