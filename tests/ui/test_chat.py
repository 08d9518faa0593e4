"""The Chat pane with the real engine and the tiny model; the tests share one engine."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from textual.events import Paste
from textual.pilot import Pilot
from textual.widgets import Input

from mlxk_tui.app import MlxkApp
from mlxk_tui.chats.model import MessageState, Role
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.demo import tiny_model
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import GenerationRequest, SamplingParams
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.conversation.request import ChatSettings
from mlxk_tui.settings import load
from mlxk_tui.ui.chat.empty_chat import SuggestionButton
from mlxk_tui.ui.chat.pane import ChatPane
from mlxk_tui.ui.chat.sessions_screen import SessionsScreen
from mlxk_tui.ui.chat.settings_form import SettingsDialog
from mlxk_tui.ui.widgets.choice_dialogs import ChoiceDialog, InputDialog
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from tests.engine.conftest import needs_mlx, new_engine
from tests.engine.small_models import make_model
from tests.ui.conftest import NOWHERE, wait_until
from tests.ui.gallery import words

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    """Return the engine shared by the apps of this module."""
    engine = new_engine()
    yield engine
    await engine.stop()


PLAIN = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
"""A chat template that leaves no room for reasoning."""


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the files of a model with endless answers."""
    return make_model(tmp_path_factory.mktemp("endless") / "m", context=8192, endless=True, template=PLAIN)


@pytest.fixture
def model(hub: Path, endless: Path) -> None:
    """Add the tiny model and a model with endless answers to the cache."""
    tiny_model.install(hub)
    repo, commit = hub / "models--mlx-community--endless", "e" * 40
    shutil.copytree(endless, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)


FULL = """CREATE TEMP TRIGGER full_disk BEFORE UPDATE ON main.messages
BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"""
"""Makes SQLite refuse as it does on a full disk, however little there is to store."""
OpenApp = Callable[..., MlxkApp]


@pytest.fixture
def open_app(engine: Engine, hub: Path, tmp_path: Path, model: None) -> OpenApp:
    """Return a function that creates the app with chats in this test's folder."""

    def make(**options: Any) -> MlxkApp:
        options = {"engine": engine, "state": tmp_path / "state", "hub": Hub(NOWHERE), **options}
        return MlxkApp(load({"refresh_seconds": 0}), Cache(hub), **options)

    return make


async def chat(pilot: Pilot[Any]) -> ChatPane:
    """Open the Chat pane and wait until it accepts prompts."""
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await wait_until(pilot, lambda: bool(app.library.entries))
    await pilot.press("f4")
    await wait_until(pilot, lambda: isinstance(app.screen, ChatPane))
    pane = app.screen
    assert isinstance(pane, ChatPane)
    await wait_until(pilot, lambda: pane.store_state.done and pane.controller.session.model is not None)
    await wait_until(pilot, lambda: pane.composer.has_focus)
    if not pane.controller.saved:  # otherwise the smallest model is used, whose answers are endless
        await pane.controller.use_model(tiny_model.NAME)
        pane.draw_state()
    return pane


async def answered(pilot: Pilot[Any], pane: ChatPane, count: int) -> None:
    """Wait until the chat has this many messages, and none is being generated."""
    await wait_until(
        pilot,
        lambda: (
            len(pane.conversation.blocks) == count
            and pane.controller.answer is None
            and all(block.live is None for block in pane.conversation.blocks)
        ),
    )


async def ask(pilot: Pilot[Any], pane: ChatPane, text: str) -> None:
    """Type a prompt, send it, and wait for its answer."""
    before = len(pane.conversation.blocks)
    pane.composer.focus()
    pane.composer.set_text(text)
    await pilot.press("enter")
    await answered(pilot, pane, before + 2)


GREEDY = ChatSettings("", {"temperature": 0})


async def let_it_ramble(pilot: Pilot[Any], pane: ChatPane) -> None:
    """Send a prompt to the model with endless answers, and wait for its first words."""
    await pane.controller.use_model("mlx-community/endless")
    pane.composer.set_text("Tell me a tip")
    await pilot.press("enter")
    await wait_until(
        pilot, lambda: pane.controller.answer is not None and len(pane.controller.answer.content) > 20
    )


async def test_prompt_is_answered_and_saved(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await pilot.press(*"Tell", "space", *"me", "space", *"a", "space", *"tip", "enter")
        await answered(pilot, pane, 2)
        answer = pane.conversation.blocks[-1].message
        assert answer.content
        assert answer.state is MessageState.DONE
        assert answer.usage["completion_tokens"] > 3
        assert answer.timings["time_to_first_token_s"] > 0
        assert pane.composer.text == ""
        assert "tok/s" in words(app)
        assert f"of {answer.usage['context_length']:,} tokens" in words(app)
    async with await ChatStore.open(tmp_path / "state" / "chats.db") as store:
        (listed,) = await store.list_sessions()
        assert listed.session.title == "Tell me a tip"
        kept = await store.messages(listed.session.id)
        assert [message.content for message in kept] == ["Tell me a tip", answer.content]


@pytest.mark.slow
async def test_answer_matches_the_engine(open_app: OpenApp, engine: Engine, hub: Path) -> None:
    from mlxk_tui.engine.models import find_runnable
    from tests.engine.conftest import run

    question = "What does verify do?"
    runnable = await find_runnable(Cache(hub), tiny_model.NAME)
    sampling = SamplingParams(temperature=0)
    plain = GenerationRequest(messages=({"role": "user", "content": question},), sampling=sampling)
    expected = await run(engine, runnable, plain)
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await pane.controller.use_settings(GREEDY)
        await ask(pilot, pane, question)
        assert pane.conversation.blocks[-1].message.content == expected.text


@pytest.mark.slow
async def test_suggestion_is_sent_with_a_click(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await chat(pilot)
        await wait_until(pilot, lambda: len(pane.query(SuggestionButton)) == len(tiny_model.SUGGESTIONS))
        await pilot.click(pane.query(SuggestionButton).first())
        await answered(pilot, pane, 2)
        assert pane.conversation.blocks[0].message.content == tiny_model.SUGGESTIONS[0]


async def test_escape_stops_the_answer_and_keeps_its_text(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await let_it_ramble(pilot, pane)
        await pilot.press("escape")
        await answered(pilot, pane, 2)
        message = pane.conversation.blocks[-1].message
        assert message.state is MessageState.STOPPED
        assert len(message.content) > 20
        assert "■ stopped" in words(app)
        await pane.controller.use_model(tiny_model.NAME)
        await ask(pilot, pane, "Tell me a tip")
        assert pane.conversation.blocks[-1].message.content


@pytest.mark.slow
async def test_reasoning_is_folded_and_can_be_unfolded(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Why does a model not run here?")
        thought = pane.conversation.blocks[-1].message.reasoning.split(".")[0]
        assert thought
        assert thought not in words(app)
        assert "▸ thought for" in words(app)
        await pilot.press("escape", "t")
        await wait_until(pilot, lambda: thought[:30] in words(app))
        row = next(y for y, text in enumerate(words(app).split("\n")) if "▾ thought" in text)
        await pilot.click(offset=(words(app).split("\n")[row].index("▾"), row))
        await wait_until(pilot, lambda: "▸ thought for" in words(app))


async def test_regenerating_keeps_the_first_answer_as_a_branch(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Tell me a tip")
        first = pane.conversation.blocks[-1].key
        await pilot.press("escape", "r")
        await wait_until(pilot, lambda: pane.conversation.blocks[-1].key != first)
        await answered(pilot, pane, 2)
        assert "‹ 2/2 ›" in words(app)
        await pilot.press("left")
        await wait_until(pilot, lambda: "‹ 1/2 ›" in words(app))
        assert pane.conversation.blocks[-1].key == first
        row = next(y for y, text in enumerate(words(app).split("\n")) if "1/2 ›" in text)
        await pilot.click(offset=(words(app).split("\n")[row].index("›", 40), row))
        await wait_until(pilot, lambda: "‹ 2/2 ›" in words(app))


@pytest.mark.slow
async def test_up_edits_the_last_prompt_and_sends_it_as_a_branch(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Tell me a tip")
        await ask(pilot, pane, "What does verify do?")
        await pilot.press("up", "up")
        assert pane.composer.text == "Tell me a tip"
        await pilot.press("down")
        assert pane.composer.text == "What does verify do?"
        await pilot.press("escape")
        assert pane.composer.text == ""
        await pilot.press("up", "space", *"now", "enter")
        await wait_until(
            pilot, lambda: "What does verify do? now" in [b.message.content for b in pane.conversation.blocks]
        )
        await answered(pilot, pane, 4)
        edited = pane.conversation.blocks[2].message
        assert (edited.sibling, edited.siblings) == (2, 2)
        pane.conversation.select(edited.id)
        pane.conversation.focus()
        await pilot.press("h")
        await wait_until(pilot, lambda: pane.conversation.blocks[2].message.content == "What does verify do?")


@pytest.mark.slow
async def test_newlines_can_be_typed_and_pasted(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await chat(pilot)
        await pilot.press("a", "backslash", "enter", "b", "shift+enter", "c")
        assert pane.composer.text == "a\nb\nc"
        pane.composer.set_text("")
        pasted = "\n".join(f"line {number} [/x]" for number in range(40))
        app.post_message(Paste(pasted.replace("\n", "\r\n")))
        await wait_until(pilot, lambda: pane.composer.text == pasted)
        pane.composer.set_text("")
        app.post_message(Paste("x" * 20_000))
        await wait_until(pilot, lambda: [len(one.text) for one in pane.draft.attachments] == [20_000])
        assert "pasted-1.txt" in words(app)
        await pilot.press("backspace")
        assert not pane.draft.attachments


@pytest.mark.slow
async def test_files_are_attached_by_drag_mention_and_name(open_app: OpenApp, tmp_path: Path) -> None:
    notes, other, binary = tmp_path / "my notes.txt", tmp_path / "b.py", tmp_path / "c.bin"
    notes.write_text("remember [the] milk")
    other.write_text("print(1)")
    binary.write_bytes(b"\x00\x01")
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        app.post_message(Paste(str(notes).replace(" ", "\\ ")))
        await wait_until(pilot, lambda: [one.name for one in pane.draft.attachments] == ["my notes.txt"])
        await pilot.press("f6")
        await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
        await pilot.press(*"c.bin", "enter")
        await wait_until(pilot, lambda: "not UTF-8 text" in words(app))
        await ask(pilot, pane, "What is in @b.py?")
        sent = pane.conversation.blocks[0].message
        assert [one.text for one in sent.attachments] == ["remember [the] milk", "print(1)"]
        assert "my notes.txt" in words(app)
        assert not pane.draft.attachments


@pytest.mark.slow
async def test_messages_and_code_blocks_are_copied(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Show me Python code")
        content = pane.conversation.blocks[-1].message.content
        await pilot.press("escape", "y")
        assert app.clipboard == content
        await pilot.press("Y")
        assert app.clipboard in content
        assert "```" not in app.clipboard
        assert "import" in app.clipboard
        app._clipboard = ""
        row = next(y for y, text in enumerate(words(app).split("\n")) if " copy" in text and "python" in text)
        await pilot.click(offset=(words(app).split("\n")[row].index("copy"), row))
        await wait_until(pilot, lambda: "import" in app.clipboard)


async def test_settings_are_validated_while_typing_and_saved(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await chat(pilot)
        await pilot.press("f10")
        await wait_until(pilot, lambda: isinstance(app.screen, SettingsDialog))
        await wait_until(
            pilot, lambda: "default 0.3" in words(app)
        )  # the tiny model's generation_config.json
        await pilot.press(*"Be", "space", *"brief", "tab", "9")
        await wait_until(pilot, lambda: "from 0 to 2" in words(app))
        await pilot.press("enter")
        assert isinstance(app.screen, SettingsDialog)
        await pilot.press("backspace", "0", "full_stop", "5", "enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ChatPane))
        await wait_until(pilot, lambda: "temperature 0.5 · system prompt" in words(app))
        await ask(pilot, pane, "Tell me a tip")
        session = await pane.controller.store.session(pane.controller.session.id)
        assert (session.system, dict(session.settings)) == ("Be brief", {"temperature": 0.5})


@pytest.mark.slow
async def test_kv_cache_bits_and_draft_model_are_set_for_a_chat_and_used(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await chat(pilot)
        await pilot.press("f10")
        await wait_until(pilot, lambda: isinstance(app.screen, SettingsDialog))
        bits, draft = (app.screen.query_one(f"#set-{name}", Input) for name in ("kv_bits", "draft_model"))
        bits.focus()
        await pilot.press("5")
        await wait_until(pilot, lambda: "kv_bits takes 4 or 8." in words(app))
        await pilot.press("enter")
        assert isinstance(app.screen, SettingsDialog)
        await pilot.press("backspace", "8", "tab")
        assert draft.has_focus
        await pilot.press(*"none-such")
        await wait_until(pilot, lambda: "No model in the cache matches 'none-such'." in words(app))
        draft.value = "tiny-demo"
        await wait_until(pilot, lambda: "Blank = model default." in words(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.screen is pane)
        await wait_until(pilot, lambda: "2 set" in words(app))
        await ask(pilot, pane, "Tell me a tip")
        assert pane.conversation.blocks[-1].message.state is MessageState.DONE
        session = await pane.controller.store.session(pane.controller.session.id)
        assert dict(session.settings) == {"kv_bits": 8, "draft_model": tiny_model.NAME}
        used = await pane.controller.draft()
        assert used is not None
        assert used.name == tiny_model.NAME


@pytest.mark.slow
async def test_unsuitable_or_missing_draft_model_is_reported(open_app: OpenApp, hub: Path) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        await pane.controller.use_settings(ChatSettings("", {"draft_model": "mlx-community/endless"}))
        await ask(pilot, pane, "Tell me a tip")
        answer = pane.conversation.blocks[-1].message
        assert answer.state is MessageState.FAILED
        assert answer.error == (
            "The draft model mlx-community/endless has a different tokenizer than mlxk-tui/tiny-demo. "
            "Choose a draft model of the same family."
        )
        shutil.rmtree(hub / "models--mlx-community--endless")
        pane.composer.set_text("Once more")
        await pilot.press("enter")
        gone = "mlx-community/endless, the draft model of this chat, is not in the cache any more."
        await wait_until(pilot, lambda: any(gone in one.message for one in app._notifications))
        assert pane.composer.text == "Once more"
        assert len(pane.conversation.blocks) == 2


@pytest.mark.slow
async def test_chats_are_searched_renamed_deleted_and_restored(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Tell me a tip")
        await pilot.press("f8")
        await wait_until(pilot, lambda: not pane.conversation.blocks)
        await ask(pilot, pane, "What does verify do?")
        await wait_until(pilot, lambda: len(pane.session_panel.listing.keys) == 2)
        await pilot.press("escape", "slash", *"checksum")
        await wait_until(pilot, lambda: len(pane.session_panel.listing.keys) == 1)
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(pane.session_panel.listing.keys) == 2)
        await pilot.press("R")
        await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
        await pilot.press("ctrl+u", *"[b]x", "enter")
        await wait_until(pilot, lambda: "[b]x" in words(app))
        await pilot.press("s", "d")
        await wait_until(pilot, lambda: len(pane.session_panel.listing.keys) == 1)
        assert not pane.controller.saved
        await pilot.press("escape", "escape")
        pane.conversation.focus()
        await pilot.press("u")
        await wait_until(pilot, lambda: len(pane.session_panel.listing.keys) == 2)


@pytest.mark.slow
async def test_chats_are_a_separate_screen_on_a_narrow_terminal(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(80, 24)) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Tell me a tip")
        await pilot.press("f8")
        await wait_until(pilot, lambda: not pane.conversation.blocks)
        await pilot.press("f7")
        await wait_until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        await wait_until(pilot, lambda: "Tell me a tip" in words(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.screen is pane and len(pane.conversation.blocks) == 2)


@pytest.mark.slow
async def test_chat_is_exported(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Tell me a tip")
        for name in ("x.md", "x.json"):
            pane.conversation.focus()
            await pilot.press("e")
            await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
            await pilot.press("ctrl+u", *name, "enter")
            await wait_until(pilot, lambda: isinstance(app.screen, ChatPane))
            await wait_until(pilot, lambda name=name: (tmp_path / name).exists())  # type: ignore[misc]  # bound early
        assert "## You\n\nTell me a tip" in (tmp_path / "x.md").read_text()
        assert json.loads((tmp_path / "x.json").read_text())["format"] == "mlxk-tui.chat"
        await pilot.press("e")
        await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
        await pilot.press("ctrl+u", *"x.md", "enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("escape", "escape")


async def test_engine_crash_keeps_the_text_and_r_retries(open_app: OpenApp, engine: Engine) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        await let_it_ramble(pilot, pane)
        pid = engine.status.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await answered(pilot, pane, 2)
        message = pane.conversation.blocks[-1].message
        assert message.state is MessageState.FAILED
        assert len(message.content) > 20
        assert "✗ " in words(app)
        assert "r retry" in words(app)
        await pane.controller.use_model(tiny_model.NAME)
        await pilot.press("escape", "r")
        await wait_until(pilot, lambda: pane.conversation.blocks[-1].key != message.id)
        await answered(pilot, pane, 2)
        assert pane.conversation.blocks[-1].message.state is MessageState.DONE
        assert "‹ 2/2 ›" in words(app)


@pytest.mark.slow
async def test_chats_and_drafts_survive_a_restart(open_app: OpenApp) -> None:
    async with open_app().run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await ask(pilot, pane, "Tell me a tip")
        said = pane.conversation.blocks[-1].message.content
        pane.composer.set_text("a draft")
        await pilot.press("f8")
        assert pane.composer.text == ""
        pane.sessions.open(int(pane.session_panel.listing.keys[0]))
        await wait_until(pilot, lambda: pane.composer.text == "a draft")
    async with open_app().run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await wait_until(pilot, lambda: len(pane.conversation.blocks) == 2)
        assert pane.conversation.blocks[-1].message.content == said


@pytest.mark.slow
async def test_leaving_the_app_during_an_answer_keeps_its_text(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await let_it_ramble(pilot, pane)
    async with await ChatStore.open(tmp_path / "state" / "chats.db") as store:
        (listed,) = await store.list_sessions()
        message = (await store.messages(listed.session.id))[-1]
        assert message.state is MessageState.STOPPED
        assert len(message.content) > 20


@pytest.mark.slow
async def test_quitting_asks_during_an_answer_and_keeps_its_text(open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        await let_it_ramble(pilot, pane)
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await wait_until(pilot, lambda: "The answer in progress will be stopped." in words(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane)
        assert pane.controller.answer is not None
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: app._exit)
    async with await ChatStore.open(tmp_path / "state" / "chats.db") as store:
        (listed,) = await store.list_sessions()
        message = (await store.messages(listed.session.id))[-1]
    assert message.state is MessageState.STOPPED
    assert len(message.content) > 20


@pytest.mark.slow
async def test_answer_that_ended_on_a_full_disk_is_stored_later(
    open_app: OpenApp,
) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        await let_it_ramble(pilot, pane)
        store = pane.controller.store
        await store._database.write(lambda connection: connection.execute(FULL))
        await wait_until(pilot, lambda: store.write_error is not None)
        await wait_until(pilot, lambda: "✗ The disk is full" in words(app))
        await pilot.press("escape")
        await answered(pilot, pane, 2)
        shown = pane.conversation.blocks[-1].message
        assert shown.state is MessageState.STOPPED
        assert shown.usage["completion_tokens"] > 5
        assert "in progress in another window" not in words(app)
        await store._database.write(lambda connection: connection.execute("DROP TRIGGER full_disk"))
        await wait_until(pilot, lambda: store.write_error is None)
        await wait_until(pilot, lambda: pane.note.display is False)
        kept = await store.message(shown.id)
    assert (kept.content, kept.state, kept.usage) == (shown.content, shown.state, shown.usage)
    assert (kept.timings, kept.finish_reason) == (shown.timings, shown.finish_reason)


@pytest.mark.slow
async def test_engine_of_the_app_stops_with_the_app(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setenv("MLX_DISABLE_COMPILE", "1")
    app = open_app(engine=None)
    async with app.run_test(size=(120, 40)) as pilot:
        pane = await chat(pilot)
        before = app.chats.status.pid
        await ask(pilot, pane, "Tell me a tip")
        pid = app.chats.status.pid
        assert (before, pid is not None) == (None, True)
        assert pid is not None
        assert psutil.pid_exists(pid)
        assert "● tiny-demo" in words(app)
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
async def test_missing_model_is_reported(open_app: OpenApp, hub: Path, tmp_path: Path) -> None:
    async with await ChatStore.open(tmp_path / "state" / "chats.db") as store:
        session = await store.create_session(model="org/[gone]")
        await store.add_message(session.id, Role.USER, "Tell me a tip")
        await store.add_message(session.id, Role.ASSISTANT, "Hm.", model="org/[gone]")
    app = open_app()
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        pane = await chat(pilot)
        await wait_until(pilot, lambda: "org/[gone] is not in the cache any more" in words(app))
        await pilot.press("x", "enter")
        assert pane.composer.text == "x"
        assert len(pane.conversation.blocks) == 2
        await pilot.press("f9")
        await wait_until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.press(*"tiny", "enter")
        await wait_until(pilot, lambda: pane.controller.session.model == tiny_model.NAME)
        pane.composer.focus()
        await pilot.press("enter")
        await answered(pilot, pane, 4)


async def test_chat_is_opened_from_the_models_pane(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(pilot, lambda: bool(app.library.entries) and app.focused is not None)
        await pilot.press("G", "c")
        await wait_until(pilot, lambda: isinstance(app.screen, ChatPane))
        pane = app.screen
        assert isinstance(pane, ChatPane)
        await wait_until(pilot, lambda: pane.controller.session.model == tiny_model.NAME)
        await ask(pilot, pane, "Tell me a tip")


@pytest.mark.slow
async def test_answer_continues_in_another_pane_and_chat(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        await let_it_ramble(pilot, pane)
        answer = pane.controller.answer
        assert answer is not None
        await pilot.press("f1")
        await wait_until(pilot, lambda: app.current_mode == "models")
        tokens = answer.tokens
        await wait_until(pilot, lambda: answer.tokens > tokens + 20)
        await pilot.press("4")
        await wait_until(pilot, lambda: app.screen is pane)
        await pilot.press("f8")
        await wait_until(pilot, lambda: not pane.conversation.blocks)
        pane.sessions.open(answer.session.id)
        await wait_until(pilot, lambda: len(pane.conversation.blocks) == 2)
        await pilot.press("escape")
        await answered(pilot, pane, 2)
        assert pane.conversation.blocks[-1].message.content == answer.content


@pytest.mark.slow
async def test_scroll_position_is_kept_during_an_answer(open_app: OpenApp) -> None:
    app = open_app()
    async with app.run_test(size=(60, 16)) as pilot:
        pane = await chat(pilot)
        await let_it_ramble(pilot, pane)
        view = pane.conversation
        await wait_until(pilot, lambda: view.virtual_size.height > 15)
        assert view.following
        view.focus()
        await pilot.press("pageup")
        place = view.scroll_y
        height = view.virtual_size.height
        await wait_until(pilot, lambda: view.virtual_size.height > height)
        assert view.scroll_y == place
        await wait_until(pilot, lambda: "New text below" in words(app))
        await pilot.press("G")
        await wait_until(pilot, lambda: view.following and "New text below" not in words(app))
        await pilot.press("escape")
        await asyncio.sleep(0)
        await wait_until(pilot, lambda: pane.controller.answer is None)
