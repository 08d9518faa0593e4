"""Pictures of the Chat pane in every state, with stored messages and without an engine."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from mlxk_tui.app import MlxkApp
from mlxk_tui.chats.model import Attachment, Message, MessageState, Role, Session
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.demo import tiny_model
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.conversation.answer import AnswerProgress
from mlxk_tui.settings import load
from mlxk_tui.ui.chat.pane import ChatPane
from mlxk_tui.ui.shell.footer import KeyFooter
from tests.ui.conftest import MACHINE, NOW, NOWHERE, Unchanged, copy_sample, wait_until
from tests.ui.gallery import NO_COLOR, THEMES, settle

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}
NAME = tiny_model.NAME
LONG = """**Verify** reads every byte and compares it with its checksum:

1. files of the hub's *LFS* store by SHA-256
2. small files by their git hash

```python
def verify(path: Path, expected: str) -> bool:
    # an unknown checksum is no proof
    return sha256(path.read_bytes()).hexdigest() == expected
```

| key | what it does |
|---|---|
| `v` | one model |
| `V` | all of them |

```sh
mlxk-headless health --json
```

> [docs](https://example.org) are linked, never opened; <b>HTML</b> and \x1b[31mescapes\x1b[0m stand as text.
"""
USAGE = {"prompt_tokens": 412, "completion_tokens": 156, "reasoning_tokens": 41, "context_length": 4096}
TIMINGS = {"generation_tps": 291.4, "time_to_first_token_s": 0.31, "reasoning_s": 3.2}


def _message(number: int, parent: int | None, role: Role, content: str, **more: Any) -> Message:
    return Message(number, 0, parent, role, content, NOW - 600 + number, **more)


def _answer(number: int, parent: int, content: str, **more: Any) -> Message:
    options = {"model": NAME, "usage": USAGE, "timings": TIMINGS, **more}
    return _message(number, parent, Role.ASSISTANT, content, **options)


FULL = (
    _message(1, None, Role.USER, "What does verify do?\nAnd what about [this]?", attachments=(
        Attachment("notes.txt", "x" * 2100),
    )),
    _answer(2, 1, "Another answer."),
    _answer(3, 1, LONG, reasoning="The user asks for verify.\nI tell what is compared, then show code."),
)  # fmt: skip
FAILED = (
    _message(1, None, Role.USER, "Tell me everything"),
    _answer(
        2,
        1,
        "The beginning of an answer that",
        state=MessageState.FAILED,
        error="The inference process ended (signal 9). The next request starts another one.",
        usage={},
        timings={},
    ),
)
STOPPED = (
    _message(1, None, Role.USER, "Tell me a tip"),
    _answer(2, 1, "Press ? for the keys", state=MessageState.STOPPED),
    _message(3, 2, Role.USER, "Go on"),
    _answer(4, 3, "Here is more of it", finish_reason="length"),
)


def _session(title: str, messages: Sequence[Message], ago: float, **more: Any) -> Session:
    options = {"model": NAME, "system": "", "settings": {}, **more}
    return Session(0, title, created=NOW - ago, updated=NOW - ago, head=messages[-1].id, **options)


CHATS: dict[str, tuple[Session, Sequence[Message]]] = {
    "full": (_session("What does verify do?", FULL, 3600), FULL),
    "failed": (_session("Tell me everything", FAILED, 7200, settings={"temperature": 0.5}), FAILED),
    "stopped": (_session("A tip [bold]", STOPPED, 86400 * 3, system="Be brief."), STOPPED),
    "gone": (_session("An old chat with a long title", FULL, 86400 * 40, model="org/[gone]-4bit"), FULL),
}


async def _keep(state: Path) -> None:
    """Store the chats."""
    async with await ChatStore.open(state / "chats.db") as store:
        for session, messages in CHATS.values():
            await store.import_session(session, messages)


@dataclass(frozen=True)
class Look:
    """One picture.

    Attributes:
        name: part of the picture's name.
        says: text on the screen once it is complete.
        keys: keys to press in the pane, with the focus in the composer.
        chat: the open chat; empty for none.
        text: text to enter in the focused field afterwards.
        state: a state that needs a separate app: `error`, `opening`, `no-model` or `no-mlx`.
        sizes: the sizes to draw; both if the width changes more than the line breaks.
    """

    name: str
    says: str
    keys: Sequence[str] = ()
    chat: str = "full"
    text: str = ""
    state: str = ""
    sizes: Sequence[str] = ("80x24",)


BOTH = tuple(SIZES)
LOOKS = (
    Look("full", "never opened", sizes=BOTH),
    Look("unfolded", "never opened", ("escape", "t"), sizes=BOTH),
    Look("top", "notes.txt", ("escape", "g")),
    Look("code-choice", "Copy a code block", ("escape", "Y")),
    Look("settings", "Chat settings", ("f10",), sizes=BOTH),
    Look("settings-wrong", "from 0 to 2", ("f10", "tab", "9")),
    Look("models", "Switch model", ("f9",)),
    Look("export-wrong", "No such folder", ("escape", "e", "ctrl+u"), text="/nowhere/x.md"),
    Look("search", "1 found", ("escape", "slash"), text="answer that", sizes=BOTH),
    Look("sessions", "An old chat", ("escape", "s"), sizes=BOTH),
    Look("edit", "Editing a message", ("up",)),
    Look("help", "esc close", ("escape", "question_mark")),
    Look("failed", "retry", chat="failed"),
    Look("stopped", "stopped at the token limit", chat="stopped"),
    Look("gone", "not in the cache any more", chat="gone"),
    Look("empty", "Give me a tour", chat="", sizes=BOTH),
    Look("live", "38 tok/s", sizes=BOTH),
    Look("error", "Can't open the chats", state="error", chat=""),
    Look("opening", "Opening chats", state="opening", chat=""),
    Look("no-model", "No chat model yet", state="no-model", chat=""),
    Look("no-mlx", "Models can't run here", state="no-mlx", chat=""),
)
MORE = {"full", "empty"}
"""Pictures that are wanted in light and without colours too."""
QUICK = {"full", "settings", "sessions", "empty", "error", "no-model", "no-mlx"}
"""Pictures that are drawn in the quick tests."""


def _app(state: str, sample: Path) -> MlxkApp:
    hub = Path("hub").absolute()
    hub.mkdir(exist_ok=True)
    if state != "no-model":
        copy_sample(sample, hub)
        tiny_model.install(hub)
    machine = replace(MACHINE, mlx_lm=None, architectures=frozenset()) if state == "no-mlx" else MACHINE
    return MlxkApp(
        load({"refresh_seconds": 0}),
        Cache(Path("hub")),
        clock=lambda: NOW,
        runtime=machine,
        remember=False,
        state=Path("state"),
        hub=Hub(NOWHERE),
    )


async def _pane(pilot: Pilot[Any], state: str) -> ChatPane:
    """Open the pane and wait until it is complete."""
    app = pilot.app
    await pilot.press("f4")
    await wait_until(pilot, lambda: isinstance(app.screen, ChatPane))
    pane = app.screen
    assert isinstance(pane, ChatPane)
    pane.composer.cursor_blink = False
    if state != "opening":
        await wait_until(pilot, lambda: pane.store_state.done or pane.store_state.problem is not None)
    if not state:
        await wait_until(pilot, lambda: len(pane.session_panel.listing.keys) == len(CHATS))
    return pane


async def _show(pilot: Pilot[Any], pane: ChatPane, look: Look) -> None:
    """Show a picture's scene, starting from any previous one."""
    app = pilot.app
    if look.chat:
        store = await app.chats.store()  # type: ignore[attr-defined]  # it is the real app
        listed = await store.list_sessions()
        wanted = next(item.session for item in listed if item.session.title == CHATS[look.chat][0].title)
        pane.sessions.open(wanted.id)
        await wait_until(pilot, lambda: pane.controller.session.id == wanted.id and pane.composer.has_focus)
        await settle(pilot, "F8")  # the footer, which a dialog does not change
    if look.name == "live":
        pane.conversation.append(_message(901, None, Role.USER, "And now?"))
        answer = _answer(902, 901, "It is written **token** by token, `and`", usage={}, timings={})
        live = AnswerProgress(reasoning_s=1.2, reasoning_tokens=20, tokens=57, tokens_per_s=38.2)
        pane.conversation.append(replace(answer, reasoning="Hm."), live)
    await pilot.press(*look.keys)
    if look.text:
        await wait_until(pilot, lambda: isinstance(app.focused, Input))
        assert isinstance(app.focused, Input)
        app.focused.value = look.text
    await settle(pilot, look.says)
    if app.screen is not pane:  # a dialog: the footer below it may not be up to date yet
        pane.query_one(KeyFooter).bindings_changed(pane)
        await settle(pilot, look.says)


async def _leave(pilot: Pilot[Any], pane: ChatPane, look: Look) -> None:
    """Go back to the pane without dialogs."""
    app = pilot.app
    if app.screen is pane and pane.session_panel.search.has_focus:
        await pilot.press("escape")
    for _ in range(4):
        if app.screen is not pane:
            await pilot.press("escape")
    await wait_until(pilot, lambda: app.screen is pane)
    for block in pane.conversation.blocks:
        block.unfolded = False
    pane.sessions.start_chat(None)
    pane.draft.clear()
    await wait_until(pilot, lambda: pane.composer.has_focus)


Pictures = dict[str, str]
"""By name of the look."""


def _lock(state: str) -> sqlite3.Connection | None:
    """Prepare the folder of the chats; return the lock of another program, if any."""
    Path("state").mkdir()
    if state == "error":
        Path("state/chats.db").mkdir()
    if state != "opening":
        return None
    held = sqlite3.connect("state/chats.db", isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    return held


async def _draw(state: str, size_name: str, theme: str, quick: bool, sample: Path) -> Pictures:
    """Run the app in a state, or (if empty) with the stored chats, and draw every picture in a theme."""
    held = _lock(state)
    if not state:
        await _keep(Path("state"))
    app = _app(state, sample)
    pictures: Pictures = {}
    looks = [
        look
        for look in LOOKS
        if (look.state, look.name in QUICK) == (state, quick)
        and size_name in look.sizes
        and (theme == "dark" or look.name in MORE)
    ]
    async with app.run_test(size=SIZES[size_name], notifications=True) as pilot:
        await settle(pilot, "mlxk")
        pane = await _pane(pilot, state)
        for look in looks:
            await _show(pilot, pane, look)
            if theme != NO_COLOR and app.theme != THEMES[theme]:
                app.theme = THEMES[theme]
                await settle(pilot, look.says)
            pictures[look.name] = app.export_screenshot(title=app.title, simplify=True)
            if not state:
                await _leave(pilot, pane, look)
        if held is not None:
            held.execute("ROLLBACK")
            held.close()
    return pictures


@pytest.fixture(scope="module")
def runs() -> dict[tuple[str, str, str, bool], Pictures | Exception]:
    """Return the pictures of each run of the app, by state, size, theme, and whether they are quick."""
    return {}


CASES = [
    pytest.param(
        *(look, size, theme),
        marks=() if (size, theme, look.name in QUICK) == ("80x24", "dark", True) else pytest.mark.slow,
    )
    for look in LOOKS
    for size in look.sizes
    for theme in ("dark", *(("light", NO_COLOR) if look.name in MORE else ()))
]


@pytest.mark.parametrize(
    ("look", "size", "theme"), CASES, ids=lambda value: value.name if isinstance(value, Look) else value
)
async def test_chat(
    unchanged: Unchanged,
    runs: dict[tuple[str, str, str, bool], Pictures | Exception],
    monkeypatch: pytest.MonkeyPatch,
    sample_hub: Path,
    look: Look,
    size: str,
    theme: str,
) -> None:
    run = (look.state, size, theme, look.name in QUICK)
    if run not in runs:
        if theme == NO_COLOR:
            monkeypatch.setenv("NO_COLOR", "1")
        try:
            runs[run] = await _draw(*run, sample_hub)
        except Exception as error:  # noqa: BLE001 - every test of this run fails of it, at once
            runs[run] = error
    drawn = runs[run]
    if isinstance(drawn, Exception):
        raise drawn
    assert unchanged(drawn[look.name])
