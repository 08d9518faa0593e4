"""An answer as blocks in the order of the model's output, none of them empty."""

from __future__ import annotations

from mlxk_tui.engine.generation import Delta, Finished, FinishReason, GenerationTimings, TokenUsage, ToolCall
from mlxk_tui.server.blocks import BlockBuilder, BlockDelta, BlockEnded, BlockEvent, BlockKind, BlockStarted

CALL = ToolCall(0, "call_a", "look", "{}")
OTHER_CALL = ToolCall(1, "call_b", "listen", "{}")


def finished(reason: FinishReason = FinishReason.STOP) -> Finished:
    return Finished(reason, TokenUsage(1, 0, 1, 0), GenerationTimings(0, 0, 0, 0, 0, 0, 0))


def shown(blocks: BlockBuilder) -> list[tuple[BlockKind, str]]:
    return [(block.kind, block.call.name if block.call else block.text) for block in blocks.blocks]


def test_each_kind_is_a_separate_block() -> None:
    blocks = BlockBuilder()
    steps: list[BlockEvent] = []
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
        *((BlockStarted, 0), (BlockDelta, 0), (BlockDelta, 0), (BlockEnded, 0)),
        *((BlockStarted, 1), (BlockDelta, 1), (BlockDelta, 1), (BlockEnded, 1)),
        *((BlockStarted, 2), (BlockEnded, 2)),
    ]
    assert blocks.finish_reason is FinishReason.TOOL_CALLS


def test_whitespace_is_no_block_but_is_kept_before_text() -> None:
    blocks = BlockBuilder()
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
    blocks = BlockBuilder(reasoning=False, one_call=True)
    blocks.push(Delta(reasoning="Hmm.", text="Yes.", tool_calls=(CALL, OTHER_CALL)))
    blocks.push(Delta(tool_calls=(OTHER_CALL,)))
    blocks.finish(finished())
    assert shown(blocks) == [(BlockKind.TEXT, "Yes."), (BlockKind.CALL, "look")]


def test_forced_call_is_parsed_at_its_end_even_if_truncated() -> None:
    tools = [{"function": {"name": "look"}}, {"function": {"name": "leave"}}]
    whole = BlockBuilder(forced=tools)
    assert whole.push(Delta(text='{"name": "look", ')) == []
    whole.push(Delta(text='"arguments": {"at": 1}}'))
    whole.finish(finished())
    assert [(block.call.name, block.call.arguments) for block in whole.blocks if block.call] == [
        ("look", '{"at": 1}')
    ]
    assert whole.finish_reason is FinishReason.TOOL_CALLS
    for text, expected in (('{"name": "l', []), ('{"name": "lo', [(BlockKind.CALL, "look")])):
        cut = BlockBuilder(forced=tools)
        cut.push(Delta(text=text))
        cut.finish(finished(FinishReason.LENGTH))
        assert shown(cut) == expected
        assert cut.finish_reason is FinishReason.LENGTH
