"""Saved chats without an engine: palette, unsent drafts, and paging of long lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.command import CommandList, CommandPalette
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.chats.model import Attachment, Role
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.settings import load
from mlxk_tui.ui.chat.pane import ChatPane
from mlxk_tui.ui.chat.session_actions import PAGE
from mlxk_tui.ui.chat.sessions_screen import SessionsScreen
from mlxk_tui.ui.shell.quit_prompt import quit_prompt
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from tests.ui.conftest import MACHINE, NOW, NOWHERE, ready, wait_until
from tests.ui.gallery import words


@pytest.fixture
def app(sample: Cache, tmp_path: Path) -> MlxkApp:
    """Return the app with chats in this test's folder."""
    return MlxkApp(
        load({"refresh_seconds": 0}),
        sample,
        clock=lambda: NOW,
        runtime=MACHINE,
        hub=Hub(NOWHERE),
        state=tmp_path / "state",
    )


async def keep(folder: Path, *questions: str) -> None:
    """Store chats with one prompt each; the last is the newest."""
    async with await ChatStore.open(folder / "chats.db") as store:
        for question in questions:
            session = await store.create_session(model="mlx-community/some")
            await store.add_message(session.id, Role.USER, question)


async def typed_into_the_palette(pilot: Pilot[Any], text: str) -> CommandList:
    """Open the palette and type."""
    await pilot.press("ctrl+p")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
    await pilot.press(*text)
    return pilot.app.screen.query_one(CommandList)


@pytest.mark.slow
async def test_palette_finds_a_chat_before_the_chat_pane_is_opened(app: MlxkApp, tmp_path: Path) -> None:
    await keep(tmp_path / "state", "Where do zebras sleep?", "Something newer")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        assert app.chats.opened is None  # nothing is opened before it is needed
        results = await typed_into_the_palette(pilot, "zebras")
        await wait_until(pilot, lambda: results.option_count == 1)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ChatPane))
        pane = app.screen
        assert isinstance(pane, ChatPane)
        await wait_until(pilot, lambda: pane.controller.session.title == "Where do zebras sleep?")
        await wait_until(pilot, lambda: [block.message.content for block in pane.conversation.blocks] != [])
        await wait_until(pilot, lambda: len(pane.session_panel.listing.keys) == 2)
        assert pane.conversation.blocks[0].message.content == "Where do zebras sleep?"
        assert "Something newer" in words(app)


@pytest.mark.slow
async def test_palette_works_if_the_chats_cannot_be_read(app: MlxkApp, tmp_path: Path) -> None:
    (tmp_path / "state" / "chats.db").mkdir(parents=True)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        results = await typed_into_the_palette(pilot, "smollm3")
        await wait_until(pilot, lambda: results.option_count >= 1)
        assert isinstance(app.screen, CommandPalette)
        assert "failed" not in words(app)


@pytest.mark.slow
async def test_palette_creates_no_file_without_chats(app: MlxkApp, tmp_path: Path) -> None:
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        results = await typed_into_the_palette(pilot, "smollm3")
        await wait_until(pilot, lambda: results.option_count >= 1)
        assert not (tmp_path / "state" / "chats.db").exists()


# -- quitting --------------------------------------------------------------------------------------


async def chat(pilot: Pilot[Any]) -> ChatPane:
    """Open the Chat pane."""
    await ready(pilot)
    await pilot.press("f4")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, ChatPane))
    pane = pilot.app.screen
    assert isinstance(pane, ChatPane)
    await wait_until(pilot, lambda: pane.store_state.done and pane.composer.has_focus)
    return pane


@pytest.mark.slow
async def test_quitting_asks_about_unsent_drafts(app: MlxkApp, tmp_path: Path) -> None:
    await keep(tmp_path / "state", "An older one", "A question")
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        await wait_until(pilot, lambda: len(pane.conversation.blocks) == 1)
        await pilot.press(*"begun")
        assert app.chats.unsent() == 1
        pane.sessions.start_chat(None)
        pane.draft.attach(Attachment("notes.txt", "text"))
        assert app.chats.unsent() == 2
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await wait_until(pilot, lambda: "2 unsent drafts will be lost." in words(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is pane)
        pane.draft.clear()
        pane.sessions.open(pane.controller.session.id if pane.controller.saved else 2)
        await wait_until(pilot, lambda: pane.composer.text == "begun")
        pane.draft.clear()
        # Opened for editing and not changed: nothing would be lost.
        pane.draft.recall(-1, pane.conversation.messages)
        assert pane.composer.text == "A question"
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: app._exit)


@pytest.mark.parametrize(
    ("options", "title", "text"),
    [
        (
            {"answers": 1},
            "Quit with 1 answer running?",
            "The answer in progress will be stopped. The text so far is saved.",
        ),
        (
            {"answers": 2, "temporary": True},
            "Quit with 2 answers running?",
            "2 answers in progress will be deleted with the demo.",
        ),
        (
            {"unsent": 1},
            "Quit with an unsent draft?",
            "Your unsent draft will be lost.",
        ),
        (
            {"transfers": 1, "unsent": 1, "answers": 1},
            "Quit with 1 answer and 1 transfer running?",
            (
                "Your unsent draft will be lost. The answer in progress will be stopped. The text so far is "
                "saved. The transfer resumes at the next start."
            ),
        ),
    ],
)
def test_quit_message_is_accurate(options: dict[str, Any], title: str, text: str) -> None:
    assert quit_prompt([], options.pop("transfers", 0), **options) == (title, text)


# -- long lists ------------------------------------------------------------------------------------


async def keep_many(folder: Path, count: int) -> None:
    """Store empty chats; `Chat 0` is the oldest."""
    async with await ChatStore.open(folder / "chats.db") as store:
        for number in range(count):
            await store.create_session(title=f"Chat {number}")


@pytest.mark.slow
async def test_older_chats_are_loaded_when_the_cursor_approaches(app: MlxkApp, tmp_path: Path) -> None:
    await keep_many(tmp_path / "state", 2 * PAGE + 3)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        pane = await chat(pilot)
        panel = pane.session_panel
        listing = panel.listing
        await wait_until(pilot, lambda: len(listing.keys) == PAGE)
        assert panel.border_subtitle == f"{PAGE}+"
        listing.focus()
        await pilot.press("G")
        await wait_until(pilot, lambda: len(listing.keys) == 2 * PAGE)
        assert listing.cursor == PAGE - 1  # the cursor stays on its chat
        await pilot.press("G")
        await wait_until(pilot, lambda: len(listing.keys) == 2 * PAGE + 3)
        assert panel.border_subtitle == f"{2 * PAGE + 3}"
        await pilot.press("G")
        await wait_until(
            pilot, lambda: listing.selected is not None and listing.selected.session.title == "Chat 0"
        )
        assert "Chat 0" in words(app)


@pytest.mark.slow
async def test_older_chats_are_loaded_when_scrolling_with_the_wheel(app: MlxkApp, tmp_path: Path) -> None:
    await keep_many(tmp_path / "state", PAGE + 50)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        listing = (await chat(pilot)).session_panel.listing
        await wait_until(pilot, lambda: len(listing.keys) == PAGE)
        listing.scroll_to(y=2 * PAGE - 60, animate=False, immediate=True)
        await wait_until(pilot, lambda: len(listing.keys) == PAGE + 50)
        await pilot.pause()
        assert listing.cursor == 0
        assert round(listing.scroll_y) == 2 * PAGE - 60  # the scroll position is kept


@pytest.mark.slow
async def test_older_chats_are_loaded_on_a_narrow_terminal(app: MlxkApp, tmp_path: Path) -> None:
    await keep_many(tmp_path / "state", PAGE + 50)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        pane = await chat(pilot)
        await pilot.press("escape", "s")
        await wait_until(pilot, lambda: isinstance(app.screen, SessionsScreen))
        listing = pane.sessions.panel.listing
        await wait_until(pilot, lambda: len(listing.keys) == PAGE and listing.has_focus)
        await pilot.press("G")
        await wait_until(pilot, lambda: len(listing.keys) == PAGE + 50)
