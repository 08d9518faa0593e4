"""Files of an earlier version (JSON API 0.3.0, before the packages moved) can be read.

`old_data/` was written by the chat store, the queue and the settings of that version, and never changes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tomlkit

from mlxk_tui.app import MlxkApp
from mlxk_tui.chats.export import export_json, import_json
from mlxk_tui.chats.model import MessageState, Role
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.server.http.keys import read_keys
from mlxk_tui.settings import FIELDS, Settings, load
from mlxk_tui.transfers.jobs import Pull, Push, TransferState
from mlxk_tui.transfers.queue_file import QueueFile
from mlxk_tui.ui.shell.keys import known_ids

OLD = Path(__file__).parent / "old_data"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a copy of the old files that the test may change."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


async def test_chats_keep_their_messages_branches_and_settings(old: Path) -> None:
    async with await ChatStore.open(old / "chats.db") as store:
        assert store.notice is None
        pinned, chat = [listed.session for listed in await store.list_sessions()]
        assert (pinned.title, pinned.pinned, pinned.model) == ("A title of my own [bold]", True, None)
        assert [message.state for message in await store.messages(pinned.id)] == [
            MessageState.DONE,
            MessageState.STOPPED,
        ]
        assert (chat.model, chat.system) == ("mlx-community/Qwen3-0.6B-4bit", "Be brief.")
        assert chat.settings == {"temperature": 0.5, "max_tokens": 200}
        question, answer, again, called, result, failed = await store.messages(chat.id)
        assert [(one.name, one.text) for one in question.attachments] == [("notes.txt", "Ein Apfel\n")]
        assert (answer.content, answer.sibling, answer.siblings) == ("It reads every byte.", 2, 2)
        first = (await store.siblings(answer.id))[0]
        assert (first.content, first.reasoning) == ("It compares checksums.", "The user asks.")
        assert (first.usage, first.timings) == (
            {"prompt_tokens": 12, "completion_tokens": 5},
            {"generation_tps": 31.5},
        )
        assert again.content == "Call a tool"
        assert called.tool_calls[0]["function"] == {"name": "look", "arguments": "{}"}
        assert (result.role, result.tool_call_id) == (Role.TOOL, "call_1")
        assert (failed.state, failed.error) == (
            MessageState.FAILED,
            "The inference process ended (signal 9).",
        )
        found = [listed.session.id for listed in await store.list_sessions("checksums")]
        assert found == [chat.id]


async def test_exported_chat_is_imported_unchanged(old: Path, tmp_path: Path) -> None:
    async with await ChatStore.open(tmp_path / "new.db") as store:
        session = await import_json(store, old / "chat.json")
        await export_json(store, session.id, tmp_path / "again.json")
    before, after = (json.loads(path.read_text()) for path in (old / "chat.json", tmp_path / "again.json"))
    for document in (before, after):  # an import is new
        del document["created"], document["updated"]
    assert after == before


def test_transfers_resume(old: Path) -> None:
    stored = QueueFile(old / "transfers.json").read(repair=True)
    assert stored.problem is None
    waiting, paused, failed, done, cancelled = stored.transfers
    assert waiting.job == Pull("org/waiting")
    assert paused.job == Pull("org/paused@v1", ("model.safetensors",))
    assert (paused.state, paused.attempts, paused.bytes_done) == (TransferState.PAUSED, 2, 5)
    assert failed.job == Push("/models/mine", "org/mine", "dev", "Better", create=True, delete=True)
    assert failed.failure is not None
    assert (failed.failure.type, failed.failure.message) == (ErrorType.ACCESS_DENIED, "No.")
    assert (done.state, done.bytes_total, done.files_done) == (TransferState.DONE, 10, 2)
    assert cancelled.state is TransferState.CANCELLED


def test_custom_settings_and_keys_are_kept(old: Path) -> None:
    loaded = load({}, old / "config.toml")
    assert loaded.problems == ()
    settings = loaded.settings
    written = tomlkit.parse((old / "config.toml").read_text()).unwrap()
    assert {name for name in FIELDS if getattr(settings, name) != getattr(Settings(), name)} == set(written)
    assert len(settings.keymap) > 150
    assert set(settings.keymap) - known_ids(MlxkApp) == set()


def test_api_keys_are_read(old: Path) -> None:
    file = old / "api-keys"
    file.write_text("# of the server\nlaptop:abc-123\nsecret\n")
    file.chmod(0o600)
    assert read_keys(file) == {"laptop": "abc-123", "default": "secret"}
