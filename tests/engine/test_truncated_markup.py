"""Tool calls in tags that are cut off, at every character, in the formats of mlx-lm's parsers."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.engine.formats.tool_calls import parse_tool_calls
from mlxk_tui.engine.formats.truncated_markup import is_markup_parser, parse_truncated_markup

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "deep": {"type": "object"},
                },
            },
        },
    }
    for name in ("get_weather", "get_time")
]
ARGUMENTS = {"city": "Zürich 日本 <b>\n2 > 1", "days": 3, "deep": {"a": [1, "}"]}}
TEXTS = {"city": ARGUMENTS["city"], "days": "3", "deep": '{"a": [1, "}"]}'}


def written(kind: str, name: str, end: bool = True) -> str:
    """Return a call in the format of a family, in its block."""
    parts = TEXTS.items()
    if kind == "qwen3_coder":
        inner = "".join(f"<parameter={key}>\n{text}\n</parameter>\n" for key, text in parts)
        return f"\n<function={name}>\n{inner}</function>\n"
    if kind in {"glm47", "laguna"}:
        return f"{name}\n" + "".join(
            f"<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value>\n" for key, text in parts
        )
    if kind == "longcat":
        return f"{name}\n" + "".join(
            f"<longcat_arg_key>{key}</longcat_arg_key>\n<longcat_arg_value>{text}</longcat_arg_value>\n"
            for key, text in parts
        )
    if kind == "minimax_m2":
        inner = "".join(f'<parameter name="{key}">{text}</parameter>\n' for key, text in parts)
        return f'\n<invoke name="{name}">\n{inner}</invoke>\n'
    if kind == "minicpm5":
        inner = "".join(f'<param name="{key}"><![CDATA[{text}]]></param>' for key, text in parts)
        return f'"{name}">{inner}'
    if kind == "muse_spark":
        inner = "".join(f'<atem:parameter name="{key}">{text}</atem:parameter>\n' for key, text in parts)
        return f'\n<atem:invoke name="{name}">\n{inner}</atem:invoke>\n'
    inner = "".join(
        f'<|open|>argument key="{key}" type="{"string" if key == "city" else "json"}"<|sep|>{text}'
        "<|close|>argument<|sep|>"
        for key, text in parts
    )
    return f'<|open|>call tool="{name}" index="1"<|sep|>{inner}<|close|>call<|sep|>'


KINDS = ["qwen3_coder", "glm47", "laguna", "longcat", "minimax_m2", "minicpm5", "muse_spark", "kimi_k3"]
SEVERAL = ["minimax_m2", "muse_spark", "kimi_k3"]
"""Those whose block holds several calls."""


def module(kind: str) -> Any:
    """Return mlx-lm's module of a family; skip if this mlx-lm has none."""
    try:
        return importlib.import_module(f"mlx_lm.tool_parsers.{kind}")
    except ModuleNotFoundError:
        pytest.skip(f"this mlx-lm has no parser of {kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_call_grows_by_complete_parameters(kind: str) -> None:
    family = module(kind)
    parser = family.parse_tool_call
    assert is_markup_parser(parser)
    text = written(kind, "get_weather")
    whole = parse_tool_calls(text, parser=parser, tools=TOOLS)
    assert whole is not None
    assert json.loads(whole[0].arguments) == ARGUMENTS
    seen: list[str] = []
    for end in range(len(text) + 1):
        calls = parse_truncated_markup(
            text[:end], parser, TOOLS, first_index=2, block_end=family.tool_call_end
        )
        assert calls is not None, text[:end]
        assert len(calls) <= 1
        for call in calls:
            assert (call.index, call.name) == (2, "get_weather")
            assert whole[0].arguments.startswith(call.arguments)
            if call.truncated:  # the client has to close it
                assert call.arguments == "" or json.loads(call.arguments + "}")
            else:
                assert call.arguments == whole[0].arguments
            if not seen or seen[-1] != call.arguments:
                seen.append(call.arguments)
    texts = [json.loads(f"{text}}}") for text in seen if text and text != whole[0].arguments]
    assert seen[0] == ""
    assert [len(each) for each in texts] == [1, 2, 3]
    assert texts[-1] == ARGUMENTS


@pytest.mark.parametrize("kind", SEVERAL)
def test_calls_before_the_truncated_one_are_complete(kind: str) -> None:
    family = module(kind)
    text = written(kind, "get_time") + written(kind, "get_weather")
    last = written(kind, "get_weather")
    for end in range(len(text) - len(last), len(text)):
        calls = parse_truncated_markup(
            text[:end], family.parse_tool_call, TOOLS, block_end=family.tool_call_end
        )
        assert calls is not None
        assert (calls[0].name, calls[0].truncated) == ("get_time", False)
        assert json.loads(calls[0].arguments) == ARGUMENTS
        assert [call.name for call in calls[1:]] in ([], ["get_weather"])


@pytest.mark.parametrize("kind", KINDS)
def test_partial_end_tag_is_not_part_of_a_parameter(kind: str) -> None:
    family = module(kind)
    for end in range(len(family.tool_call_end)):
        text = written(kind, "get_weather") + family.tool_call_end[:end]
        calls = parse_truncated_markup(text, family.parse_tool_call, TOOLS, block_end=family.tool_call_end)
        assert calls is not None
        assert json.loads(calls[0].arguments + "}" * calls[0].truncated) == ARGUMENTS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["words and more", "<other>", '{"name": "get_weather"', "get_weather(city="])
def test_other_text_stays_text(kind: str, text: str) -> None:
    family = module(kind)
    assert parse_truncated_markup(text, family.parse_tool_call, TOOLS, block_end=family.tool_call_end) is None
    behind = written(kind, "get_weather")
    behind = behind[: behind.index("days")].rpartition("<")[0].removesuffix("<|open|>") + " words"
    assert (
        parse_truncated_markup(behind, family.parse_tool_call, TOOLS, block_end=family.tool_call_end) is None
    )


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_text_is_parsed_without_exceptions(kind: str, data: st.DataObject) -> None:
    family = module(kind)
    text = written(kind, "get_weather")
    at = data.draw(st.integers(0, len(text)))
    noise = data.draw(st.text(alphabet="<>/=\"'{}|_ageprmtcn\ufffd\n", max_size=12))
    for call in parse_truncated_markup(text[:at] + noise + text[at:], family.parse_tool_call, TOOLS) or ():
        assert isinstance(call.arguments, str)
