"""Parsing of tool calls in a model's text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.engine.formats.tool_calls import parse_tool_calls


def named(payload: str) -> list[tuple[str, Any]] | None:
    calls = parse_tool_calls(payload)
    return None if calls is None else [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('{"name": "f", "arguments": {"x": 1}}', [("f", {"x": 1})]),
        ('\n{"name": "f", "arguments": "{\\"x\\": 1}"}\n', [("f", {"x": 1})]),
        ('{"name": "f", "parameters": {"é": "👍"}}', [("f", {"é": "👍"})]),
        ('{"name": "f"}', [("f", {})]),
        ('{"name": "f", "arguments": null}', [("f", {})]),
        ('{"type": "function", "function": {"name": "f", "arguments": {}}}', [("f", {})]),
        ('[{"name": "f"}, {"name": "g", "arguments": {"y": [2]}}]', [("f", {}), ("g", {"y": [2]})]),
        ('{"name": "f"}\n{"name": "g"}', [("f", {}), ("g", {})]),
        ('{"name": "f"}; {"name": "g"}', [("f", {}), ("g", {})]),
        ('```json\n{"name": "f"}\n```', [("f", {})]),
    ],
)
def test_common_formats_are_recognized(payload: str, expected: list[tuple[str, Any]]) -> None:
    assert named(payload) == expected


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "  ",
        "[]",
        "null",
        "just text",
        '{"name": "f", "arg',
        '{"name": "f"} and more',
        '{"name": 5}',
        '{"name": ""}',
        '{"name": "a b"}',
        '{"name": "\\u001b[31m"}',
        '{"arguments": {}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": "no json"}',
        '{"name": "f", "arguments": {"x": NaN}}',
        '[{"name": "f"}, 3]',
        "[" * 100_000,
        '{"name": "f", "arguments": {"x": ' + "9" * 5_000 + "}}",
        " " * 1_000_001,
    ],
)
def test_other_text_is_not_a_tool_call(payload: str) -> None:
    assert named(payload) is None


def test_calls_are_numbered_and_have_unique_ids() -> None:
    calls = parse_tool_calls(
        '[{"name": "f", "id": "abc123DEF"}, {"name": "g", "id": "bad id"}]', first_index=2
    )
    assert calls is not None
    assert [call.index for call in calls] == [2, 3]
    assert calls[0].id == "abc123DEF"
    assert calls[1].id.startswith("call_")
    again = parse_tool_calls('{"name": "g"}')
    assert again is not None
    assert again[0].id != calls[1].id


def test_parser_of_the_model_takes_precedence() -> None:
    def parser(payload: str, tools: Any) -> Any:
        return [{"name": payload, "arguments": {"tools": len(tools)}}]

    calls = parse_tool_calls("f", parser=parser, tools=[{}, {}])
    assert calls is not None
    assert (calls[0].name, calls[0].arguments) == ("f", '{"tools": 2}')


@pytest.mark.parametrize(
    "result",
    [None, 7, "text", {}, [], {"name": "f", "arguments": {1j}}, {"name": "f", "arguments": {"x": 1j}}],
)
def test_common_formats_are_tried_if_the_parser_returns_nonsense(result: object) -> None:
    calls = parse_tool_calls('{"name": "g"}', parser=lambda payload, tools: result)
    assert calls is not None
    assert calls[0].name == "g"


def test_common_formats_are_tried_if_the_parser_raises() -> None:
    def parser(payload: str, tools: Any) -> Any:
        raise AttributeError(payload)

    assert parse_tool_calls("no call", parser=parser) is None
    assert parse_tool_calls('{"name": "g"}', parser=parser) is not None


@given(st.text('{}[]":,nameargumts\\ 1', max_size=60))
def test_no_text_raises_an_exception(payload: str) -> None:
    for call in parse_tool_calls(payload) or ():
        assert isinstance(json.loads(call.arguments), dict)
