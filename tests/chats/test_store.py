"""Sessions, messages and branches of the chat store."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from mlxk_tui.chats.model import Attachment, Message, MessageState, Role
from mlxk_tui.chats.rows import title_from_message
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.ops.core.errors import ErrorType, OpError


async def titles(store: ChatStore, query: str | None = None) -> list[str]:
    return [listed.session.title for listed in await store.list_sessions(query)]


async def chat(store: ChatStore, *contents: str) -> list[Message]:
    """Create a session with alternating messages of user and assistant."""
    session = await store.create_session()
    roles = (Role.USER, Role.ASSISTANT)
    return [await store.add_message(session.id, roles[n % 2], text) for n, text in enumerate(contents)]


async def shown(store: ChatStore, session_id: int) -> list[str]:
    return [message.content for message in await store.messages(session_id)]


async def test_sessions_and_messages_survive_reopening(path: Path) -> None:
    async with await ChatStore.open(path) as store:
        session = await store.create_session(model="org/m", system="Be brief.", settings={"top_k": 5})
        await store.add_message(
            session.id,
            Role.USER,
            "Read this é👍",
            attachments=[Attachment("notes.txt", "line\n" * 3)],
        )
        await store.add_message(
            session.id,
            Role.ASSISTANT,
            "Done.",
            reasoning="Hm.",
            model="org/m",
            tool_calls=[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        )
        await store.add_message(session.id, Role.TOOL, "42", tool_call_id="c1")
    async with await ChatStore.open(path) as store:
        again = await store.session(session.id)
        assert (again.model, again.system, again.settings) == ("org/m", "Be brief.", {"top_k": 5})
        user, assistant, tool = await store.messages(session.id)
        assert user.attachments == (Attachment("notes.txt", "line\n" * 3),)
        assert user.content == "Read this é👍"
        assert (assistant.reasoning, assistant.model) == ("Hm.", "org/m")
        assert assistant.tool_calls[0]["function"]["name"] == "f"
        assert tool.tool_call_id == "c1"
        assert again.head == tool.id


async def test_files_are_private_to_their_owner(store: ChatStore, path: Path) -> None:
    await chat(store, "hello")
    session = await store.create_session()
    await store.add_message(session.id, Role.ASSISTANT, state=MessageState.STREAMING)
    names = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert names.keys() >= {"chats.db", "chats.db-wal", "chats.db-shm"}
    assert set(names.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_public_file_becomes_private(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    asyncio.run(opened_and_closed(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def opened_and_closed(path: Path) -> None:
    async with await ChatStore.open(path):
        pass


async def test_sessions_are_listed_pinned_first_then_newest(store: ChatStore) -> None:
    first = await store.create_session(title="first")
    second = await store.create_session(title="second")
    await store.create_session(title="third")
    await store.add_message(first.id, Role.USER, "again")
    assert await titles(store) == ["first", "third", "second"]
    await store.change_session(second.id, pinned=True)
    assert await titles(store) == ["second", "first", "third"]
    page = await store.list_sessions(limit=1, offset=1)
    assert [listed.session.title for listed in page] == ["first"]


async def test_first_user_message_is_the_title_until_renamed(store: ChatStore) -> None:
    (message,) = await chat(store, "\n# How do I pull a model?\nMore.")
    assert await titles(store) == ["How do I pull a model?"]
    await store.rename_session(message.session_id, "Pulling ")
    await store.add_message(message.session_id, Role.USER, "another")
    assert await titles(store) == ["Pulling"]
    await store.rename_session(message.session_id, "  ")
    assert await titles(store) == ["How do I pull a model?"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("", ""),
        (" \n\t\n", ""),
        ("short", "short"),
        ("> quoted", "quoted"),
        ("a \x1b[31m red\u202e", "a \\x1b[31m red\\u202e"),
        ("half \ud83d", "half \ufffd"),
        ("word " * 40, "word word word word word word word word word word word…"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_title_is_one_short_printable_line(text: str, title: str) -> None:
    assert title_from_message(text) == title


async def test_unstorable_characters_are_replaced(store: ChatStore) -> None:
    (message,) = await chat(store, "a\x00b\ud83dc")
    assert message.content == "a\ufffdb\ufffdc"
    session = await store.change_session(message.session_id, settings={"x": "\ud800"}, system="\x00")
    assert (session.settings, session.system) == ({"x": "\ufffd"}, "\ufffd")


async def test_deleted_session_can_be_restored_until_the_store_closes(path: Path) -> None:
    async with await ChatStore.open(path) as store:
        kept, gone = (await chat(store, "kept one"))[0], (await chat(store, "gone one"))[0]
        for message in (kept, gone):
            await store.delete_session(message.session_id)
        assert await titles(store) == []
        assert await titles(store, "one") == []
        await store.restore_session(kept.session_id)
        assert await titles(store, "one") == ["kept one"]
    async with await ChatStore.open(path) as store:
        with pytest.raises(OpError) as error:
            await store.restore_session(gone.session_id)
        assert error.value.type is ErrorType.VALIDATION_ERROR
        with pytest.raises(OpError):
            await store.message(gone.id)
        assert await shown(store, kept.session_id) == ["kept one"]


async def test_messages_are_loaded_in_pages(store: ChatStore) -> None:
    all_of_it = await chat(store, *(str(n) for n in range(100)))
    session = all_of_it[0].session_id
    last = await store.messages(session, limit=30)
    assert [message.content for message in last] == [str(n) for n in range(70, 100)]
    above = await store.messages(session, before=last[0].id, limit=30)
    assert [message.content for message in above] == [str(n) for n in range(40, 70)]
    top = await store.messages(session, before=above[0].id, limit=50)
    assert [message.content for message in top] == [str(n) for n in range(40)]
    assert await store.messages(session, before=all_of_it[0].id) == []
    (elsewhere,) = await chat(store, "elsewhere")
    with pytest.raises(OpError):
        await store.messages(session, before=elsewhere.id)
    assert len(await store.messages(session, limit=None)) == 100


async def test_regenerating_keeps_the_old_answer(store: ChatStore) -> None:
    question, answer = await chat(store, "q", "first answer")
    other = await store.add_message(
        question.session_id, Role.ASSISTANT, "second answer", sibling_of=answer.id
    )
    assert other.parent_id == question.id
    assert (other.sibling, other.siblings) == (2, 2)
    assert await shown(store, question.session_id) == ["q", "second answer"]
    assert [one.content for one in await store.siblings(other.id)] == ["first answer", "second answer"]
    await store.select_branch(answer.id)
    assert await shown(store, question.session_id) == ["q", "first answer"]


async def test_editing_keeps_the_branch_of_the_old_question(store: ChatStore) -> None:
    first, _, _, last = await chat(store, "q1", "a1", "q2", "a2")
    edited = await store.add_message(first.session_id, Role.USER, "q1 edited", sibling_of=first.id)
    assert edited.parent_id is None
    await store.add_message(first.session_id, Role.ASSISTANT, "a1 edited")
    assert await shown(store, first.session_id) == ["q1 edited", "a1 edited"]
    session = await store.select_branch(first.id)
    assert session.head == last.id
    assert await shown(store, first.session_id) == ["q1", "a1", "q2", "a2"]


async def test_message_of_another_session_cannot_be_a_sibling(store: ChatStore) -> None:
    (one,), (other,) = await chat(store, "one"), await chat(store, "other")
    with pytest.raises(OpError):
        await store.add_message(one.session_id, Role.USER, "x", sibling_of=other.id)
    assert await shown(store, one.session_id) == ["one"]


async def test_copy_has_all_branches_and_is_independent(store: ChatStore) -> None:
    question, answer = await chat(store, "q", "a")
    await store.add_message(question.session_id, Role.ASSISTANT, "b", sibling_of=answer.id)
    copy = await store.duplicate_session(question.session_id)
    assert copy.title == "q (copy)"
    assert await shown(store, copy.id) == ["q", "b"]
    assert [one.content for one in await store.siblings((await store.messages(copy.id))[-1].id)] == ["a", "b"]
    await store.add_message(copy.id, Role.USER, "more")
    assert await shown(store, question.session_id) == ["q", "b"]
    assert len(await store.list_sessions("b")) == 2


async def test_streamed_answer_is_the_sum_of_its_deltas(store: ChatStore) -> None:
    (question,) = await chat(store, "q")
    answer = await store.add_message(
        question.session_id, Role.ASSISTANT, model="m", state=MessageState.STREAMING
    )
    for delta in ("Hel", "lo", " 👍"):
        store.update_streaming(answer.id, content=delta, reasoning=delta.upper())
    assert (await store.message(answer.id)).content == "Hello 👍"
    store.update_streaming(answer.id, content="!")
    done = await store.finish_message(
        answer.id, finish_reason="stop", usage={"completion_tokens": 4}, timings={"generation_tps": 9.5}
    )
    assert (done.content, done.reasoning, done.state) == ("Hello 👍!", "HELLO 👍", MessageState.DONE)
    assert (done.finish_reason, done.usage, done.timings) == (
        "stop",
        {"completion_tokens": 4},
        {"generation_tps": 9.5},
    )
    with pytest.raises(OpError):
        store.update_streaming(answer.id, content="late")


async def test_failed_answer_has_the_error_and_keeps_its_text(store: ChatStore) -> None:
    (question,) = await chat(store, "q")
    answer = await store.add_message(question.session_id, Role.ASSISTANT, state=MessageState.STREAMING)
    store.update_streaming(answer.id, content="half")
    await store.finish_message(answer.id, state=MessageState.FAILED, error="The engine crashed.")
    failed = await store.message(answer.id)
    assert (failed.content, failed.state, failed.error) == (
        "half",
        MessageState.FAILED,
        "The engine crashed.",
    )


async def test_unfinished_answer_is_stopped_when_the_store_closes(path: Path) -> None:
    async with await ChatStore.open(path) as store:
        (question,) = await chat(store, "q")
        answer = await store.add_message(question.session_id, Role.ASSISTANT, state=MessageState.STREAMING)
        store.update_streaming(answer.id, content="half an answer")
    assert [file.name for file in path.parent.glob("*.writer*")] == []
    async with await ChatStore.open(path) as store:
        stopped = await store.message(answer.id)
        assert (stopped.content, stopped.state) == ("half an answer", MessageState.STOPPED)
        assert len(await store.list_sessions("half answer")) == 1


async def test_streamed_text_is_stored_automatically(store: ChatStore, path: Path) -> None:
    (question,) = await chat(store, "q")
    answer = await store.add_message(question.session_id, Role.ASSISTANT, state=MessageState.STREAMING)
    store.update_streaming(answer.id, content="soon stored")
    async with await ChatStore.open(path) as other:
        while (await other.message(answer.id)).content != "soon stored":  # noqa: ASYNC110 - reads a file
            await asyncio.sleep(0)
        assert (await other.messages(question.session_id))[-1].state is MessageState.STREAMING


async def test_cancelled_flush_neither_loses_nor_duplicates_text(store: ChatStore) -> None:
    (question,) = await chat(store, "q")
    answer = await store.add_message(question.session_id, Role.ASSISTANT, state=MessageState.STREAMING)
    for number in range(30):
        store.update_streaming(answer.id, content=f"{number} ")
        task = asyncio.create_task(store.flush())
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    done = await store.finish_message(answer.id)
    assert done.content == "".join(f"{number} " for number in range(30))


async def test_answer_cancelled_at_its_start_is_not_left_streaming(
    store: ChatStore,
) -> None:
    (question,) = await chat(store, "q")
    for turns in range(30):
        task = asyncio.create_task(
            store.add_message(question.session_id, Role.ASSISTANT, "x", state=MessageState.STREAMING)
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await store.finish_message(task.result().id)
    messages = await store.messages(question.session_id)
    assert MessageState.STREAMING not in {message.state for message in messages}


async def test_many_tasks_can_use_the_store_at_once(store: ChatStore) -> None:
    await asyncio.gather(*(chat(store, "one", "two", "three") for _ in range(20)))
    sessions = await store.list_sessions()
    assert len(sessions) == 20
    for listed in sessions:
        assert await shown(store, listed.session.id) == ["one", "two", "three"]


async def test_two_stores_can_add_to_one_session(store: ChatStore, path: Path) -> None:
    (message,) = await chat(store, "0")
    async with await ChatStore.open(path) as other:
        for number in range(1, 10):
            writer = other if number % 2 else store
            await writer.add_message(message.session_id, Role.USER, str(number))
        assert await shown(other, message.session_id) == [str(number) for number in range(10)]


async def test_closed_store_raises_an_error(path: Path) -> None:
    store = await ChatStore.open(path)
    await store.close()
    await store.close()
    with pytest.raises(OpError, match="closed"):
        await store.list_sessions()


async def test_given_title_becomes_one_line(store: ChatStore) -> None:
    session = await store.create_session(title=" two\n lines ")
    assert session.title == "two lines"
    assert len((await store.rename_session(session.id, "long " * 1000)).title) == 200
