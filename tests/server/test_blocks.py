"""An answer as blocks in the order of the model's output, none of them empty."""

from __future__ import annotations

from mlxk_tui.engine.generation import Delta, Finished, FinishReason, GenerationTimings, TokenUsage, ToolCall
from mlxk_tui.server.blocks import Begun, BlockKind, Blocks, Ended, More, Step

CALL = ToolCall(0, "call_a", "look", "{}")
OTHER_CALL = ToolCall(1, "call_b", "listen", "{}")


def finished(reason: FinishReason = FinishReason.STOP) -> Finished:
    return Finished(reason, TokenUsage(1, 0, 1, 0), GenerationTimings(0, 0, 0, 0, 0, 0, 0))


def shown(blocks: Blocks) -> list[tuple[BlockKind, str]]:
    return [(block.kind, block.call.name if block.call else block.text) for block in blocks.blocks]


def test_each_kind_is_a_separate_block() -> None:
    blocks = Blocks()
    steps: list[Step] = []
    for delta in (
        Delta(reasoning="Hm"),
        Delta(reasoning="m.", text="Let me "),
        Delta(text="look.", tool_calls=(CALL,)),
    ):
        steps += blocks.push(delta)
    steps += blocks.finish(finished())
    assert shown(blocks) == [
        (BlockKind.REASONING, "Hmm."),
        (BlockKind.TEXT, "Let me look."),
        (BlockKind.CALL, "look"),
    ]
    assert [(type(step), step.block.index) for step in steps] == [
        *((Begun, 0), (More, 0), (More, 0), (Ended, 0)),
        *((Begun, 1), (More, 1), (More, 1), (Ended, 1)),
        *((Begun, 2), (Ended, 2)),
    ]
    assert blocks.reason is FinishReason.TOOL_CALLS


def test_whitespace_is_no_block_but_is_kept_before_text() -> None:
    blocks = Blocks()
    for delta in (
        Delta(reasoning="\n\n"),
        Delta(text="\n"),
        Delta(text=" Yes"),
        Delta(text=".\n", tool_calls=(CALL,)),
        Delta(text="\n"),
        Delta(tool_calls=(OTHER_CALL,)),
        Delta(text="\n"),
    ):
        blocks.push(delta)
    blocks.finish(finished())
    assert shown(blocks) == [
        (BlockKind.TEXT, "\n Yes.\n"),
        (BlockKind.CALL, "look"),
        (BlockKind.CALL, "listen"),
    ]


def test_reasoning_and_further_calls_are_dropped_if_not_requested() -> None:
    blocks = Blocks(reasoning=False, one_call=True)
    blocks.push(Delta(reasoning="Hmm.", text="Yes.", tool_calls=(CALL, OTHER_CALL)))
    blocks.push(Delta(tool_calls=(OTHER_CALL,)))
    blocks.finish(finished())
    assert shown(blocks) == [(BlockKind.TEXT, "Yes."), (BlockKind.CALL, "look")]


def test_forced_call_is_parsed_at_its_end_even_if_truncated() -> None:
    tools = [{"function": {"name": "look"}}, {"function": {"name": "leave"}}]
    whole = Blocks(forced=tools)
    assert whole.push(Delta(text='{"name": "look", ')) == []
    whole.push(Delta(text='"arguments": {"at": 1}}'))
    whole.finish(finished())
    assert [(block.call.name, block.call.arguments) for block in whole.blocks if block.call] == [
        ("look", '{"at": 1}')
    ]
    assert whole.reason is FinishReason.TOOL_CALLS
    for text, expected in (('{"name": "l', []), ('{"name": "lo', [(BlockKind.CALL, "look")])):
        cut = Blocks(forced=tools)
        cut.push(Delta(text=text))
        cut.finish(finished(FinishReason.LENGTH))
        assert shown(cut) == expected
        assert cut.reason is FinishReason.LENGTH
