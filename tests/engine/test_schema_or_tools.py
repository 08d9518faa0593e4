"""A model that may call tools or answer with a schema; a script replaces the model's choices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from mlxk_tui.demo import tiny_model
from mlxk_tui.engine.formats.tool_calls import ForcedTool, forced_call_schema
from mlxk_tui.engine.generation import FinishReason, GenerationRequest
from tests.engine.conftest import needs_mlx

pytestmark = needs_mlx

TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "<tool_call>"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
)
FORCED = forced_call_schema([ForcedTool("look", {"properties": {"at": {"type": "string"}}})])
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "it"}}\n</tool_call>'
OTHER = CALL.replace('"it"', '"them"')
THOUGHT = "<think>\nHm.\n</think>\n\n"
RED, MARKED = '{"colour":"red"}', '{"colour":"<tool_call>"}'
END = "<|im_end|>"


@pytest.fixture(scope="module")
def model() -> Any:
    """Return the tiny model, loaded in this process."""
    from mlxk_tui.engine.inference.weights.loading import load

    return load(tiny_model.NAME, tiny_model.folder(), None, lambda *_: None)


def play(
    model: Any, script: str, *, tools: Sequence[Any] = (TOOL,), grammar: str = SCHEMA, dots: int = 40
) -> Any:
    """Return reasoning, text and calls of a model that follows the script, and whether it ended.

    If a token of the script is not allowed, the most likely allowed token is used instead, and the script
    continues, followed by this many dots.
    """
    import mlx.core as mx

    from mlxk_tui.engine.inference.output.delta_assembler import DeltaAssembler
    from mlxk_tui.engine.inference.prompts.prompt_builder import prepare_prompt

    request = GenerationRequest(
        messages=({"role": "user", "content": "Look."},),
        tools=tuple(tools),
        grammar=grammar,
        forced_call=grammar == FORCED,
    )
    prompt = prepare_prompt(model, request)
    answer = DeltaAssembler(model, request, prompt)
    constraint = prompt.constraint
    assert constraint is not None
    said = list(prompt.tokens)
    (dot,) = model.tokenizer.encode(".", add_special_tokens=False)
    wanted = [*model.tokenizer.encode(script, add_special_tokens=False), *[dot] * dots]
    ended = False
    for token in wanted:
        logits = mx.zeros((1, model.vocab_size))
        logits[0, token] = 10.0
        drawn: Any = mx.argmax(constraint(mx.array(said), logits)).item()
        said.append(drawn)
        ended = drawn in model.stop_tokens
        answer.push(drawn, None, ends_turn=ended)
        if constraint.completed_by(drawn, answer.tokens) or ended:
            ended = True
            break
    assert constraint.error is None
    answer.finish(FinishReason.STOP if ended else FinishReason.LENGTH)
    deltas = answer.take_deltas()
    calls = [call for delta in deltas for call in delta.tool_calls]
    return (
        "".join(delta.reasoning for delta in deltas).strip(),
        "".join(delta.text for delta in deltas),
        [None if call.truncated else json.loads(call.arguments).get("at") for call in calls],
        ended,
    )


@pytest.mark.parametrize(
    ("script", "reasoning", "text", "calls"),
    [
        (CALL + END, "", "", ["it"]),
        (THOUGHT + CALL + END, "Hm.", "", ["it"]),
        ("\n\n" + CALL + END, "", "", ["it"]),
        (CALL + "\n" + OTHER + END, "", "", ["it", "them"]),
        (THOUGHT + CALL + OTHER + END, "Hm.", "", ["it", "them"]),
        (RED, "", RED, []),
        (THOUGHT + RED, "Hm.", RED, []),
        ("\n" + RED, "", RED, []),
        (MARKED, "", MARKED, []),
        (THOUGHT + MARKED, "Hm.", MARKED, []),
        # Neither may follow the other, and nothing may follow either of them.
        (CALL + RED, "", "", ["it"]),
        (CALL + "Well.", "", "", ["it"]),
        (RED + CALL, "", RED, []),
    ],
)
def test_answer_is_either_a_call_or_follows_the_schema(
    model: Any, script: str, reasoning: str, text: str, calls: list[str]
) -> None:
    assert play(model, script) == (reasoning, text, calls, True)


def test_text_that_is_not_a_call_follows_the_schema(model: Any) -> None:
    reasoning, text, calls, ended = play(model, "I will have a look: " + CALL)
    assert (reasoning, calls, ended) == ("", [], True)
    assert json.loads(text)["colour"] in {"red", "<tool_call>"}


def test_incomplete_call_is_a_truncated_call(model: Any) -> None:
    assert play(model, CALL[:20], dots=0) == ("", "", [], False)
    assert play(model, CALL[:30], dots=0) == ("", "", [None], False)
    assert play(model, CALL[:50], dots=0) == ("", "", [None], False)
    assert play(model, CALL[:54], dots=0) == ("", "", ["it"], False)
    assert play(model, "<tool_call>\nlook at", dots=0) == ("", "<tool_call>\nlook at", [], False)


@pytest.mark.parametrize("grammar", [SCHEMA, FORCED], ids=["no tools", "forced"])
def test_without_tool_choice_only_the_schema_applies(model: Any, grammar: str) -> None:
    tools = () if grammar == SCHEMA else (TOOL,)
    _, text, calls, _ = play(model, CALL, tools=tools, grammar=grammar)
    assert text.startswith('{"')
    assert not calls
