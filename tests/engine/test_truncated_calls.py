"""Tool calls that are cut off by a limit, at every character."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.engine.formats.truncated_calls import parse_forced_call, parse_truncated_calls

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name}}
    for name in ("get_weather", "get_time", 'odd "näme" \\ 🙂')
]
ARGUMENTS: dict[str, Any] = {
    "city": 'Z\u00fcrich "\u65e5\u672c" \\ \n 🙂 \ud83d',
    "days": [1.5, -2e3, True, None],
    "deep": {"": {}},
}


@pytest.mark.parametrize("number", range(len(TOOLS)))
@pytest.mark.parametrize(("ascii_only", "separators"), [(True, None), (False, (",", ":"))])
def test_truncated_forced_call_grows_to_the_complete_call(
    number: int, ascii_only: bool, separators: tuple[str, str] | None
) -> None:
    name = TOOLS[number]["function"]["name"]
    wrapper = {"name": name, "arguments": ARGUMENTS}
    text = json.dumps(wrapper, ensure_ascii=ascii_only, separators=separators)
    shown = ""
    quoted = json.dumps(name, ensure_ascii=ascii_only)
    known_from = text.index(quoted) + (6 if name.startswith("get") else 2)
    for end in range(len(text) + 1):
        call = parse_forced_call(text[:end], TOOLS)
        if call is None:
            assert end < max(known_from, text.index(quoted) + len(quoted))
            assert shown == ""
            continue
        assert call.name == name
        assert call.arguments.startswith(shown)
        assert call.truncated == (call.arguments == "" or not _whole(call.arguments))
        shown = call.arguments
    assert json.loads(shown) == ARGUMENTS
    assert text.endswith(shown + "}")


def _whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_single_tool_is_known_from_the_first_character() -> None:
    assert parse_forced_call("", TOOLS[:1]) is None
    for text in ("{", '{"na', '{"name"', '{"name": "', '{"name": "get_w'):
        call = parse_forced_call(text, TOOLS[:1])
        assert call is not None
        assert (call.name, call.arguments, call.truncated) == ("get_weather", "", True)
        assert parse_forced_call(text, TOOLS) is None or text.endswith("w")


def test_incomplete_characters_are_dropped() -> None:
    call = parse_forced_call('{"name":"get_time","arguments":{"a":"\u65e5\ufffd\ufffd', TOOLS)
    assert call is not None
    assert call.arguments == '{"a":"\u65e5'
    half = parse_forced_call('{"name":"odd \\"n\ufffd', TOOLS)
    assert half is not None
    assert half.name == TOOLS[2]["function"]["name"]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("", []),
        ('\n{"na', []),
        ('{"name": "get_', []),
        ('{"name": "get_w', [("get_weather", "")]),
        ('{"name": "unknown"', [("unknown", "")]),
        ('{"name": "unknow', []),
        ('{"name": "f", "arguments": {"x": [1, 2', [("f", '{"x": [1, 2')]),
        ('{"name": "f", "parameters": {"x": "y', [("f", '{"x": "y')]),
        ('{"name": "f", "arguments": "{\\"x\\": \\"y', [("f", '{"x": "y')]),
        ('{"name": "f", "arguments": {"x": 1}', [("f", '{"x": 1}')]),
        ('{"name": "f"}\n{"name": "g", "arguments": {', [("f", "{}"), ("g", "{")]),
        ('[{"name": "f"}, {"name": "g", "argum', [("f", "{}"), ("g", "")]),
        ('[{"name": "f"}, ', [("f", "{}")]),
    ],
)
def test_truncated_free_json_calls_are_recognized(payload: str, expected: list[tuple[str, str]]) -> None:
    calls = parse_truncated_calls(payload, TOOLS, first_index=3)
    assert calls is not None
    assert [(call.name, call.arguments) for call in calls] == expected
    assert [call.index for call in calls] == list(range(3, 3 + len(expected)))


@pytest.mark.parametrize(
    "payload",
    [
        "<function=f>",
        "f(x=1",
        "words",
        '{"other": 1',
        '{"name": "f", "arguments": {x: 1',
        '{"name": "f", "arguments": [1',
    ],
)
def test_other_text_stays_text(payload: str) -> None:
    assert parse_truncated_calls(payload, TOOLS) is None


@given(st.text(alphabet='{}[]"\\:, nameargumts1\ufffd', max_size=60))
def test_any_text_is_parsed_without_exceptions(text: str) -> None:
    for call in (*(parse_truncated_calls(text, TOOLS) or ()), parse_forced_call(text, TOOLS)):
        assert call is None or isinstance(call.arguments, str)
    opening = '{"name": "get_time", "arguments": '
    for call in (
        *(parse_truncated_calls(opening + text, TOOLS) or ()),
        parse_forced_call(opening + text, TOOLS),
    ):
        assert call is None or call.name == "get_time"
