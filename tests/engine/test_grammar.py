"""Answers that follow a JSON schema are always valid."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.formats.tool_calls import ForcedTool, forced_call_schema, parse_tool_calls
from mlxk_tui.engine.generation import FinishReason, GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, THOUGHT_OVER, chat, needs_mlx, run

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]

SCHEMAS: dict[str, dict[str, Any]] = {
    "nested objects": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "size": {
                "type": "object",
                "properties": {
                    "width": {"type": "integer", "minimum": 1, "maximum": 999},
                    "unit": {"const": "cm"},
                },
                "required": ["width", "unit"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "size"],
        "additionalProperties": False,
    },
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 5},
    "enum": {"enum": ["red", "green", "naïve café 🙂", 7, None]},
    "numbers": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 10, "maximum": 19}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
    "union": {
        "anyOf": [
            {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2},
            {
                "type": "object",
                "properties": {"x": {"type": "string", "maxLength": 5}},
                "required": ["x"],
                "additionalProperties": False,
            },
        ]
    },
    "reference": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "v": {"enum": [1]},
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]},
                },
                "required": ["v", "next"],
                "additionalProperties": False,
            },
            "leaf": {"type": "string", "format": "date"},
        },
    },
    "markers in a text": {"const": {"say": "<think>no</think> <tool_call>{}</tool_call> <|im_end|>"}},
}


def bound(schema: object, **more: Any) -> GenerationRequest:
    """Return a greedy request without reasoning."""
    return chat(
        "Hello!",
        **{
            "max_tokens": 200,
            "template_kwargs": {"enable_thinking": False},
            "grammar": json.dumps(schema),
            **more,
        },
    )


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize(
    "sampling",
    [GREEDY, pytest.param(SamplingParams(temperature=1.5, seed=3), marks=pytest.mark.slow)],
    ids=["greedy", "hot"],
)
async def test_answer_follows_the_schema(
    engine: Engine, tiny: RunnableModel, babbler: RunnableModel, name: str, sampling: SamplingParams
) -> None:
    for model in (tiny, babbler):
        result = await run(engine, model, bound(SCHEMAS[name], sampling=sampling))
        jsonschema.validate(json.loads(result.text), SCHEMAS[name])
        assert result.finished.finish_reason is FinishReason.STOP
        assert not result.reasoning
        assert not result.tool_calls


async def test_json_object_gives_an_object(engine: Engine, tiny: RunnableModel) -> None:
    for seed in range(3):
        request = bound({}, sampling=SamplingParams(temperature=1.0, seed=seed), max_tokens=60)
        result = await run(engine, tiny, request)
        if result.finished.finish_reason is FinishReason.STOP:
            assert isinstance(json.loads(result.text), dict)
        else:
            assert result.text.startswith("{")


@pytest.mark.slow
async def test_other_requests_are_not_affected(engine: Engine, tiny: RunnableModel) -> None:
    free = [chat(text, max_tokens=80, return_token_ids=True) for text in ("Hello!", "What do the panes do?")]
    alone = [await run(engine, tiny, request) for request in free]
    schemas = list(SCHEMAS.values())[:4]
    expected = [await run(engine, tiny, bound(schema)) for schema in schemas]
    mixed = [*map(bound, schemas[:2]), *free, *map(bound, schemas[2:])]
    results = await asyncio.gather(*(run(engine, tiny, request) for request in mixed))
    assert [result.token_ids for result in results[2:4]] == [result.token_ids for result in alone]
    constrained = [*results[:2], *results[4:]]
    assert [result.text for result in constrained] == [result.text for result in expected]


async def test_answer_is_cut_off_by_max_tokens(engine: Engine, babbler: RunnableModel) -> None:
    whole = await run(engine, babbler, bound(SCHEMAS["nested objects"]))
    cut = await run(engine, babbler, bound(SCHEMAS["nested objects"], max_tokens=5))
    assert cut.finished.finish_reason is FinishReason.LENGTH
    assert cut.tokens == 5
    assert whole.text.startswith(cut.text)
    exact = await run(engine, babbler, bound(SCHEMAS["nested objects"], max_tokens=whole.tokens))
    assert (exact.text, exact.finished.finish_reason) == (whole.text, FinishReason.STOP)


@pytest.mark.slow
async def test_reasoning_is_free_and_the_answer_is_constrained(
    engine: Engine, tiny: RunnableModel, babbler: RunnableModel
) -> None:
    # This model opens its reasoning itself.
    free = await run(engine, tiny, chat(THOUGHT_OVER, max_tokens=300))
    assert free.reasoning
    schema = SCHEMAS["nested objects"]
    result = await run(engine, tiny, chat(THOUGHT_OVER, max_tokens=300, grammar=json.dumps(schema)))
    assert result.reasoning == free.reasoning
    jsonschema.validate(json.loads(result.text), schema)
    assert 0 < result.finished.usage.reasoning_tokens < result.finished.usage.completion_tokens
    # The template of this model opens the reasoning; by itself the model never closes it.
    closing = 4  # the token of </think>
    request = chat("Hello", max_tokens=60, grammar=json.dumps(schema))
    lost = await run(engine, babbler, request)
    assert (lost.text, lost.finished.finish_reason) == ("", FinishReason.LENGTH)
    pushed = replace(request, sampling=replace(GREEDY, logit_bias={closing: 100.0}))
    result = await run(engine, babbler, pushed)
    jsonschema.validate(json.loads(result.text), schema)
    ending = replace(request, sampling=replace(GREEDY, logit_bias={0: 100.0}))  # tries to end its turn
    result = await run(engine, babbler, ending)
    jsonschema.validate(json.loads(result.text), schema)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{nothing", "not JSON"),
        ("[]", "not an object"),
        ("false", "not an object"),
        ('{"type": "banana"}', "banana"),
        ('{"$ref": "#/$defs/none"}', "does not exist"),
        ('{"$ref": "http://127.0.0.1:9/schema.json"}', "not present"),
        ('{"not": {"type": "string"}}', "not"),
        ('{"enum": []}', "Unsatisfiable"),
        ('{"$ref": "#"}', "no answer can match it, for example because a $ref only refers to itself"),
        ('{"type": "string", "pattern": "(?<=a)b"}', "look-around"),
        ('{"properties": {"a": ' * 70 + "{}" + "}}" * 70, "nested"),
        ('{"properties": {"a": ' * 5000 + "{}" + "}}" * 5000, ""),
        ('{"description": "' + "x" * 300_000 + '"}', "characters"),
        ('{"type": "object", "x-guidance": {"lenient": true}, "not": {}}', "not"),
    ],
    ids=lambda value: value[:40] if value else "-",
)
async def test_unsupported_schema_is_rejected_at_once(
    engine: Engine, tiny: RunnableModel, schema: str, why: str
) -> None:
    with pytest.raises(OpError) as caught:
        await run(engine, tiny, replace(bound({}), grammar=schema))
    assert caught.value.type is ErrorType.VALIDATION_ERROR
    assert caught.value.message.startswith("The JSON schema cannot be followed: ")
    assert why in caught.value.message
    assert len(caught.value.message) < 350


@pytest.mark.slow
async def test_too_complex_schema_fails_only_its_own_answer(engine: Engine, tiny: RunnableModel) -> None:
    many = {"type": "object", "properties": {f"p{number}": {"type": "integer"} for number in range(3000)}}
    good, bad = await asyncio.gather(
        run(engine, tiny, bound(SCHEMAS["array"])), run(engine, tiny, bound(many)), return_exceptions=True
    )
    assert isinstance(bad, OpError)
    assert bad.type is ErrorType.VALIDATION_ERROR
    assert not isinstance(good, BaseException)
    assert (await run(engine, tiny, bound(SCHEMAS["array"]))).text == good.text


async def test_schema_rejects_a_draft_model_and_allows_a_quantized_cache(
    engine: Engine, tiny: RunnableModel
) -> None:
    with pytest.raises(OpError) as caught:
        await run(engine, tiny, bound({}, draft_model=str(tiny.folder)))
    assert "draft" in caught.value.message
    result = await run(engine, tiny, bound(SCHEMAS["enum"], kv_bits=8))
    assert json.loads(result.text) in SCHEMAS["enum"]["enum"]


async def test_tool_call_can_be_forced(engine: Engine, tiny: RunnableModel) -> None:
    city = {
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/City"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"City": {"enum": ["Paris", "Rome"]}},
    }
    tools: list[dict[str, Any]] = [{"name": "get_weather", "parameters": city}, {"name": "get_time"}]
    for offered in (tools, tools[:1]):
        forced = [ForcedTool(tool["name"], tool.get("parameters")) for tool in offered]
        result = await run(engine, tiny, replace(bound({}), grammar=forced_call_schema(forced)))
        calls = parse_tool_calls(result.text) or ()
        assert [call.name for call in calls] in (["get_weather"], ["get_time"])
    assert json.loads(calls[0].arguments)["city"] in ("Paris", "Rome")
