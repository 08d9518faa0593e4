"""Splitting a text while it streams gives the same parts as splitting the whole text."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.engine.formats.splitting import Markers, OutputSplitter, PieceKind, StopMatcher, TextPiece

THINK = Markers("<think>", "</think>")
CALL = Markers("<call>", "</call>")

letters = st.text("ab<", max_size=40)
stops = st.lists(st.text("ab<", min_size=1, max_size=5), max_size=4)
words = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<call>", "</call>", "<", "STOP", "ST", "\n", " ", "a", "é👍", "/"]
    ),
    max_size=25,
).map("".join)


def cut(text: str, places: Sequence[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


cuts = st.lists(st.integers(0, 10_000), max_size=12)


def first_match(text: str, patterns: Sequence[str]) -> tuple[int, str] | None:
    """Reference implementation: return the start of the match that ends first, and the stop string."""
    for end in range(1, len(text) + 1):
        ending = [pattern for pattern in patterns if pattern and text[:end].endswith(pattern)]
        if ending:
            longest = max(ending, key=len)
            return end - len(longest), longest
    return None


@given(letters, stops, cuts)
def test_stop_string_is_found_with_any_chunking(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(stops)
    emitted = "".join(matcher.push(part)[0] for part in cut(text, cuts))
    match = first_match(text, stops)
    if match is None:
        assert matcher.stopped is None
        assert emitted + matcher.flush() == text
    else:
        assert matcher.stopped == match[1]
        assert emitted + matcher.flush() == text[: match[0]]


@given(letters, stops)
def test_only_possible_stop_strings_are_held_back(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    emitted = ""
    for end, char in enumerate(text, 1):
        part, found = matcher.push(char)
        emitted += part
        if found:
            return
        held = text[:end].removeprefix(emitted)
        begun = [text[start:end] for start in range(end) if any(s.startswith(text[start:end]) for s in stops)]
        assert held == max(begun, key=len, default="")


@pytest.mark.parametrize(
    ("stops", "text", "emitted", "found"),
    [
        (["o!"], "Hello!", "Hell", "o!"),
        (["abcdef", "cd"], "abcdef", "ab", "cd"),
        (["bcd", "abcd"], "xabcd", "x", "abcd"),
        (["aab"], "aaaab", "aa", "aab"),
        (["\n\n"], "one\n\ntwo", "one", "\n\n"),
        (["👍🏽"], "ok 👍🏽", "ok ", "👍🏽"),
        (["", ""], "text", "text", None),
        ([], "text", "text", None),
    ],
)
def test_first_match_wins(stops: list[str], text: str, emitted: str, found: str | None) -> None:
    for parts in (list(text), [text]):
        matcher = StopMatcher(stops)
        assert "".join(matcher.push(part)[0] for part in parts) == emitted
        assert matcher.stopped == found
        assert matcher.push("more") == (("" if found else "more"), found)


def test_near_matches_of_stop_strings_take_linear_time() -> None:
    stops = ["a" * 9_999 + "b", "ab" * 5_000 + "c"]

    def seconds(length: int) -> float:
        matcher = StopMatcher(stops)
        began = time.process_time()
        emitted = sum(len(matcher.push("a" * 10)[0]) for _ in range(length // 10))
        assert emitted + len(matcher.flush()) == length
        return time.process_time() - began

    small = min(seconds(100_000) for _ in range(2))
    assert seconds(1_000_000) < 30 * small + 0.1


def pieces_of(splitter: OutputSplitter, parts: Sequence[str]) -> list[TextPiece]:
    pieces = [piece for part in parts for piece in splitter.push(part)] + splitter.finish()
    joined: list[TextPiece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.kind is piece.kind and piece.kind is not PieceKind.TOOL:
            joined[-1] = TextPiece(piece.kind, last.text + piece.text)
        else:
            joined.append(piece)
    return joined


def by_the_rules(text: str, stops: Sequence[str], *, opened: bool) -> tuple[list[TextPiece], str | None]:
    """Reference implementation: split the whole text with regular expressions and loops."""
    pieces: list[TextPiece] = []

    def add(kind: PieceKind, text: str) -> None:
        if text and pieces and pieces[-1].kind is kind:
            text = pieces.pop().text + text
        if text:
            pieces.append(TextPiece(kind, text))

    kind, after_marker = (PieceKind.REASONING, True) if opened else (PieceKind.CONTENT, False)
    while True:
        ends = {
            PieceKind.CONTENT: [THINK.start, CALL.start],
            PieceKind.REASONING: [THINK.end],
            PieceKind.TOOL: [CALL.end],
        }[kind]
        match = first_match(text, ends)
        inside = text if match is None else text[: match[0]]
        if kind is PieceKind.TOOL:
            pieces.append(TextPiece(kind, inside, CALL.start + inside + (match[1] if match else "")))
        else:
            shown = re.sub(r"\A([ \t\r]*\n)*", "", inside) if after_marker else inside
            if after_marker and not shown.strip(" \t\r"):
                shown = ""
            stop = first_match(shown, stops) if kind is PieceKind.CONTENT else None
            if stop is not None:
                add(kind, shown[: stop[0]])
                return pieces, stop[1]
            add(kind, shown)
        if match is None:
            return pieces, None
        text = text[match[0] + len(match[1]) :]
        if kind is PieceKind.CONTENT:
            kind = PieceKind.REASONING if match[1] == THINK.start else PieceKind.TOOL
        else:
            kind = PieceKind.CONTENT
        after_marker = True


@given(
    words, st.lists(st.sampled_from(["STOP", "TO", "<", "a\n", "k>a", "é"]), max_size=2), cuts, st.booleans()
)
def test_splitting_does_not_depend_on_chunking(
    text: str, stops: list[str], cuts: list[int], opened: bool
) -> None:
    expected, stopped = by_the_rules(text, stops, opened=opened)
    for parts in (cut(text, cuts), list(text), [text]):
        splitter = OutputSplitter(stops, reasoning=THINK, tools=CALL, reasoning_open=opened)
        assert pieces_of(splitter, parts) == expected
        assert splitter.stopped == stopped


@given(words, cuts)
def test_no_text_is_lost(text: str, cuts: list[int]) -> None:
    splitter = OutputSplitter(reasoning=THINK, tools=CALL)
    shown = "".join(piece.source or piece.text for piece in pieces_of(splitter, cut(text, cuts)))
    without = re.compile(r"</?think>|\s")
    assert without.sub("", shown) == without.sub("", text)


@given(st.text("<think>/cal ", max_size=60))
def test_splitter_holds_back_only_partial_markers(text: str) -> None:
    splitter = OutputSplitter(reasoning=THINK)
    out = ""
    for end, char in enumerate(text, 1):
        out += "".join(piece.text for piece in splitter.push(char))
        marker = THINK.start if splitter.kind is PieceKind.CONTENT else THINK.end
        ends = (marker[:n] for n in range(len(marker) - 1, 0, -1) if text[:end].endswith(marker[:n]))
        held = len(next(ends, ""))
        if "think>" not in text:
            assert out == text[: end - held]


def text_of(pieces: Sequence[TextPiece], kind: PieceKind) -> str:
    return "".join(piece.text for piece in pieces if piece.kind is kind)


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "content"),
    [
        ("<think>\nwhy\n</think>\n\nbecause", False, "why\n", "because"),
        ("why</think>\n \t\n    code", True, "why", "    code"),
        ("<think>one</think>A<think>two</think>B", False, "onetwo", "AB"),
        ("<think>no end", False, "no end", ""),
        ("<think>cut in the end </thi", False, "cut in the end </thi", ""),
        ("a <b> and </think> c", False, "", "a <b> and </think> c"),
        ("<think>\n\n</think>\n\nplain", False, "", "plain"),
        ("ends with <thin", False, "", "ends with <thin"),
    ],
)
def test_reasoning_is_separated_from_content(text: str, opened: bool, reasoning: str, content: str) -> None:
    for parts in (list(text), [text]):
        splitter = OutputSplitter(reasoning=THINK, reasoning_open=opened)
        pieces = pieces_of(splitter, parts)
        assert text_of(pieces, PieceKind.REASONING) == reasoning
        assert text_of(pieces, PieceKind.CONTENT) == content


def test_stop_strings_apply_only_to_content() -> None:
    splitter = OutputSplitter(["END"], reasoning=THINK, tools=CALL)
    text = "<think>no END here</think><call>END</call>EN<think></think>D and END of it"
    pieces = pieces_of(splitter, list(text))
    assert splitter.stopped == "END"
    assert text_of(pieces, PieceKind.CONTENT) == "END and "
    assert text_of(pieces, PieceKind.TOOL) == "END"
    assert splitter.push("more") == []
    assert splitter.finish() == []


def test_stop_string_similar_to_a_marker_is_found() -> None:
    splitter = OutputSplitter(["<"], reasoning=THINK)
    assert pieces_of(splitter, ["1 <"]) == [TextPiece(PieceKind.CONTENT, "1 ")]
    assert splitter.stopped == "<"


def test_tool_calls_are_complete_and_separate() -> None:
    splitter = OutputSplitter(tools=CALL)
    assert splitter.push('Look.<call>{"a"') == [TextPiece(PieceKind.CONTENT, "Look.")]
    assert splitter.push(":1}</ca") == []
    assert splitter.push("ll>\n<call>x") == [TextPiece(PieceKind.TOOL, '{"a":1}', '<call>{"a":1}</call>')]
    assert splitter.finish() == [TextPiece(PieceKind.TOOL, "x", "<call>x")]


def test_tool_call_without_an_end_marker_extends_to_the_end() -> None:
    splitter = OutputSplitter(["END"], tools=Markers("[TOOL_CALLS]", ""))
    assert splitter.push("Hm [TOOL_CALLS]f[ARGS]{}") == [TextPiece(PieceKind.CONTENT, "Hm ")]
    assert splitter.push("END") == []
    assert splitter.finish() == [TextPiece(PieceKind.TOOL, "f[ARGS]{}END", "[TOOL_CALLS]f[ARGS]{}END")]


def test_structural_tokens_are_removed() -> None:
    splitter = OutputSplitter(dropped=["<|open|>", "<|close|>"])
    assert pieces_of(splitter, list("<|open|>hi <|x<|close|>")) == [TextPiece(PieceKind.CONTENT, "hi <|x")]
