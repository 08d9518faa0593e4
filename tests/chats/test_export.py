"""Export of chats to Markdown and JSON, and import from JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlxk_tui.chats.document import ChatDocument
from mlxk_tui.chats.export import export_json, export_markdown, import_json, suggested_name
from mlxk_tui.chats.model import Attachment, Message, MessageState, Role, Session
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.ops.core.errors import ErrorType, OpError


async def sample(store: ChatStore) -> Session:
    """A chat with a branch, an attachment with fences, reasoning, a tool call and a failure."""
    session = await store.create_session(model="org/m", system="Be brief.\nAlways.", settings={"seed": 1})
    await store.add_message(
        session.id, Role.USER, "Look at this é👍", attachments=[Attachment("a.md", "```\ncode\n```\n")]
    )
    first = await store.add_message(
        session.id,
        Role.ASSISTANT,
        "# Seen\n\nIt is code.",
        reasoning="Let me see.\n",
        model="org/m",
        tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    )
    answer = await store.add_message(
        session.id, Role.ASSISTANT, sibling_of=first.id, model="org/n", state=MessageState.STREAMING
    )
    store.update_streaming(answer.id, content="Half \x1b[31m")
    await store.finish_message(
        answer.id, state=MessageState.FAILED, error="The engine crashed.", usage={"x": 1}
    )
    return await store.select_branch(first.id)


def files_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.is_file()]


def comparable(message: Message, base: int) -> Message:
    parent = None if message.parent_id is None else message.parent_id - base
    return replace(message, id=message.id - base, session_id=0, parent_id=parent, created=0)


async def test_json_export_and_import_preserve_a_session(store: ChatStore, tmp_path: Path) -> None:
    session = await sample(store)
    path = await export_json(store, session.id, tmp_path / "chat.json")
    copy = await import_json(store, path)
    assert copy.id != session.id
    assert (copy.title, copy.model, copy.system, copy.settings) == (
        session.title,
        session.model,
        session.system,
        session.settings,
    )
    _, before = await store.full_session(session.id)
    _, after = await store.full_session(copy.id)
    base = (session.id << 24, copy.id << 24)
    assert [comparable(one, base[1]) for one in after] == [comparable(one, base[0]) for one in before]
    created = [one.created for one in before]
    assert [one.created for one in after] == pytest.approx(created, rel=0, abs=1e-5)
    assert [one.content for one in await store.messages(copy.id)][-1] == "# Seen\n\nIt is code."
    assert len(await store.list_sessions("half")) == 2


async def test_json_export_follows_its_schema(store: ChatStore, tmp_path: Path) -> None:
    session = await sample(store)
    path = await export_json(store, session.id, tmp_path / "chat.json")
    document = json.loads(path.read_bytes())
    jsonschema.validate(document, ChatDocument.model_json_schema(mode="serialization"))
    assert (document["format"], document["version"]) == ("mlxk-tui.chat", 1)
    assert document["created"].endswith("Z")


async def test_an_empty_session_can_be_exported(store: ChatStore, tmp_path: Path) -> None:
    session = await store.create_session()
    copy = await import_json(store, await export_json(store, session.id, tmp_path / "chat.json"))
    assert await store.messages(copy.id) == []
    path = await export_markdown(store, session.id, tmp_path / "chat.md")
    assert path.read_text().startswith("# Chat\n")


async def test_markdown_shows_the_conversation(store: ChatStore, tmp_path: Path) -> None:
    session = await sample(store)
    text = (await export_markdown(store, session.id, tmp_path / "chat.md")).read_text()
    assert text.startswith("# Look at this é👍\n\n")
    assert "> Be brief.\n> Always.\n" in text
    assert "## You\n\nAttached: a.md\n\n````\n```\ncode\n```\n````\n\nLook at this é👍\n" in text
    assert (
        "## org/m\n\n<details><summary>Reasoning</summary>\n\nLet me see.\n\n</details>\n\n# Seen\n" in text
    )
    assert '```json\n[\n  {\n    "id": "c",' in text
    assert "Half" not in text


async def test_markdown_export_has_no_control_characters(store: ChatStore, tmp_path: Path) -> None:
    session = await sample(store)
    question = (await store.messages(session.id))[0]
    failed = (await store.siblings((await store.messages(session.id))[-1].id))[1]
    await store.select_branch(failed.id)
    text = (await export_markdown(store, session.id, tmp_path / "chat.md")).read_text()
    assert question.content in text
    assert "Half \\x1b[31m\n\n*(failed: The engine crashed.)*" in text


async def test_file_is_replaced_only_on_request(store: ChatStore, tmp_path: Path) -> None:
    session = await sample(store)
    path = tmp_path / "chat.md"
    path.write_text("mine")
    with pytest.raises(OpError) as refused:
        await export_markdown(store, session.id, path)
    assert refused.value.type is ErrorType.VALIDATION_ERROR
    assert path.read_text() == "mine"
    await export_markdown(store, session.id, path, overwrite=True)
    assert files_in(tmp_path) == ["chat.md"]


async def test_missing_folder_is_an_error(store: ChatStore, tmp_path: Path) -> None:
    session = await sample(store)
    with pytest.raises(OpError) as refused:
        await export_json(store, session.id, tmp_path / "absent" / "chat.json")
    assert refused.value.type is ErrorType.PERMISSION_DENIED


GOOD: dict[str, Any] = {
    "format": "mlxk-tui.chat",
    "version": 1,
    "created": "2026-01-31T12:00:00Z",
    "updated": "2026-01-31T12:00:00Z",
    "head": 9,
    "messages": [
        {"id": 5, "role": "user", "content": "q", "created": "2026-01-31T12:00:00Z"},
        {"id": 9, "parent": 5, "role": "assistant", "content": "a", "created": "2026-01-31T13:00:00+01:00",
         "state": "streaming", "later": "key"},
    ],
}  # fmt: skip


async def test_handwritten_document_is_imported(store: ChatStore, tmp_path: Path) -> None:
    path = tmp_path / "hand.json"
    path.write_text(json.dumps(GOOD))
    session = await import_json(store, path)
    question, answer = await store.messages(session.id)
    assert question.created == answer.created == session.created
    assert answer.state is MessageState.STOPPED


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"head": 3}, "head"),
        ({"messages": [GOOD["messages"][1]]}, "parent of message 9"),
        ({"messages": [GOOD["messages"][0]] * 2}, "message 5 appears twice"),
        ({"messages": [{**GOOD["messages"][0], "role": "\x1b"}]}, "messages.0.role"),
        ({"messages": "none"}, "messages"),
        ({"created": "yesterday"}, "created"),
    ],
)
async def test_invalid_document_is_rejected_with_the_location(
    store: ChatStore, tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(OpError) as refused:
        await import_json(store, path)
    assert refused.value.type is ErrorType.VALIDATION_ERROR
    assert where in refused.value.message
    assert "\x1b" not in refused.value.message
    assert await store.list_sessions() == []


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"[" * 100_000, b'{"title": "\\ud800"}'])
async def test_other_files_are_rejected(store: ChatStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(data)
    with pytest.raises(OpError) as refused:
        await import_json(store, path)
    assert refused.value.type is ErrorType.VALIDATION_ERROR


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("How do I pull a model?", "1970-01-01-how-do-i-pull-a-model.md"),
        ("../../etc/passwd", "1970-01-01-etc-passwd.md"),
        ("", "1970-01-01-chat-3.md"),
        ("...", "1970-01-01-chat-3.md"),
        ("日本語 テスト", "1970-01-01-日本語-テスト.md"),
        ("\x1b[31m\x00\u202e", "1970-01-01-31m.md"),
        ("日" * 200, f"1970-01-01-{'日' * 33}.md"),
    ],
)
def test_suggested_file_name_is_safe_on_every_system(title: str, name: str) -> None:
    session = Session(3, title, None, "", {}, 0.0, 0.0, None)
    assert suggested_name(session, ".md") == name
