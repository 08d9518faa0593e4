"""Search in chats, with and without FTS5."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from mlxk_tui.chats.model import Message, MessageState, Role
from mlxk_tui.chats.search import Query
from mlxk_tui.chats.store import ChatStore


@pytest.fixture(params=[True, False], ids=["fts5", "like"])
def full_text(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


CHATS = {
    "Models": ["How do I pull a model?", "Press p in the Models pane, then type its name."],
    "Café": ["Wo ist das nächste Café? 100% sicher", "Links um die Ecke."],
    "Code": ["What is C++ good for?", "foo_bar() and operator[] and snake_case."],
    "日本語": ["日本語の質問です。犬と猫", "はい、そうです。"],
}


async def filled(path: Path, full_text: bool) -> ChatStore:
    store = await ChatStore.open(path, full_text=full_text)
    for title, messages in CHATS.items():
        session = await store.create_session(title=title)
        for content in messages:
            await store.add_message(session.id, Role.USER, content)
    return store


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("pull", ["Models"]),
        ("PULL mod", ["Models"]),
        ("pull pane", []),  # not in one message
        ("name press", ["Models"]),
        ("models", ["Models"]),
        ("Ecke", ["Café"]),
        ("100%", ["Café"]),
        ("C++", ["Code"]),
        ("foo_bar()", ["Code"]),
        ("犬", ["日本語"]),
        ("質問です", ["日本語"]),
        ("code", ["Code"]),
        ("caf", ["Café"]),
        ("absent", []),
        ("\"' OR *", []),
        ("NEAR(a b)", []),
        ("\x00", ["日本語", "Code", "Café", "Models"]),
        ("  ", ["日本語", "Code", "Café", "Models"]),
    ],
)
async def test_search_finds_sessions_by_words(
    path: Path, full_text: bool, query: str, found: list[str]
) -> None:
    async with await filled(path, full_text) as store:
        assert [listed.session.title for listed in await store.list_sessions(query)] == found


async def test_newest_match_is_shown_with_its_context(path: Path, full_text: bool) -> None:
    async with await filled(path, full_text) as store:
        session = await store.create_session()
        await store.add_message(session.id, Role.USER, "zebra one")
        last = await store.add_message(
            session.id,
            Role.USER,
            "Some words\x1b[31m\n\nin front of it and " * 3 + "the ZEBRA\n\n" + "after " * 90,
        )
        (listed,) = await store.list_sessions("zebra")
        match = listed.match
        assert match is not None
        assert match.message_id == last.id
        assert [match.text[begin:end] for begin, end in match.spans] == ["ZEBRA"]
        assert match.text.startswith("…")
        assert match.text.endswith("…")
        assert len(match.text) <= 140
        assert "\x1b" not in match.text
        assert "\n" not in match.text


async def test_match_in_the_title_has_no_excerpt(path: Path, full_text: bool) -> None:
    async with await filled(path, full_text) as store:
        (listed,) = await store.list_sessions("café")
        assert listed.match is not None
        (listed,) = await store.list_sessions("日本語")
        assert listed.match is not None
        await store.rename_session(listed.session.id, "Renamed")
        (listed,) = await store.list_sessions("renamed")
        assert listed.match is None


@pytest.mark.slow
async def test_word_in_thousands_of_messages_finds_every_session(path: Path, full_text: bool) -> None:
    async with await ChatStore.open(path, full_text=full_text) as store:
        old = await store.create_session(title="old")
        await store.add_message(old.id, Role.USER, "a common word")
        await store.create_session(title="other")
        copies = [Message(n, 0, None, Role.USER, "common", created=n) for n in range(1, 10_101)]
        many = await store.import_session(replace(old, title="many", updated=9e9), copies)
        assert [listed.session.id for listed in await store.list_sessions("common")] == [many.id, old.id]
        (second,) = await store.list_sessions("common", limit=1, offset=1)
        assert second.match is not None
        assert second.match.text == "a common word"
        assert await store.list_sessions("common absent") == []


async def test_messages_written_without_fts5_are_found_with_fts5(path: Path) -> None:
    async with await filled(path, False):
        pass
    async with await ChatStore.open(path) as store:
        while not store._index.complete:  # the filling runs beside the first searches
            assert len(await store.list_sessions("pull")) == 1
            await asyncio.sleep(0)
        assert len(await store.list_sessions("pull")) == 1


async def test_streaming_answer_is_found_when_finished(store: ChatStore) -> None:
    session = await store.create_session()
    answer = await store.add_message(session.id, Role.ASSISTANT, state=MessageState.STREAMING)
    store.update_streaming(answer.id, content="unique")
    await store.flush()
    assert await store.list_sessions("unique") == []
    await store.finish_message(answer.id)
    assert len(await store.list_sessions("uniqu")) == 1


async def test_removed_session_is_removed_from_the_index(path: Path) -> None:
    async with await filled(path, True) as store:
        for listed in await store.list_sessions():
            await store.delete_session(listed.session.id)
    async with await ChatStore.open(path) as store:
        rows = await store._database.read(
            lambda connection: connection.execute(
                "SELECT rowid FROM message_search WHERE message_search MATCH 'pull'"
            ).fetchall()
        )
        assert rows == []
        check = "INSERT INTO message_search(message_search) VALUES('integrity-check')"
        await store._database.write(lambda connection: connection.execute(check))


@given(st.text(max_size=30), st.text(max_size=300))
def test_any_query_gives_printable_matches_with_valid_spans(query: str, content: str) -> None:
    words = Query.parse(query)
    if words is None:
        return
    match = words.match(1, content)
    assert all(0 <= begin <= end <= len(match.text) for begin, end in match.spans)
    assert "\n" not in match.text
