"""The Transfers pane with the local hub: search, preflight, pull, pause and resume, by keys and mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mlxk_tui.app import MlxkApp
from mlxk_tui.demo.hub import Fault, Generated, LocalHub
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.services.library import ModelState as Verdict
from mlxk_tui.transfers.jobs import Pull, TransferState
from mlxk_tui.transfers.queue_file import QueueFile, state_file
from mlxk_tui.transfers.starters import STARTERS
from mlxk_tui.ui.models.pane import ModelsPane
from mlxk_tui.ui.transfers.pane import TransfersPane
from mlxk_tui.ui.transfers.preflight import PreflightDialog
from mlxk_tui.ui.transfers.push_form import PushForm, ReviewDialog
from mlxk_tui.ui.transfers.screen import TransferScreen
from mlxk_tui.ui.transfers.search import SearchScreen
from mlxk_tui.ui.widgets.choice_dialogs import InputDialog
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from mlxk_tui.ui.widgets.row_list import ListRow
from mlxk_tui.ui.widgets.text import Part
from tests.support.hf_cache import HfCache, model_files, safetensors
from tests.ui.conftest import AppMaker, ready, wait_until
from tests.ui.test_model_actions import flat, toasts
from tests.ui.test_models_pane import NARROW, WIDE, text, three

TINY = "mlx-community/Tiny-4bit"
LARGE = "mlx-community/Large-4bit"
HEAVY = "mlx-community/Heavy-4bit"
GATED = "closed/Gated-Tiny"
SIZE = 8_000_000
"""Bytes of Large's weights."""
SLOW = 20_000
"""Bytes a second of one connection: Large takes long enough to be paused."""


@pytest.fixture
def local() -> Iterator[LocalHub]:
    """A hub with a small model, a larger one, and a gated one."""
    with LocalHub() as made:
        made.add_repo(TINY, model_files(), downloads=1_200, tags=["mlx"])
        made.add_repo(LARGE, {**model_files(), "extra.bin": Generated(SIZE, 1)}, downloads=30, tags=["mlx"])
        made.add_repo(GATED, model_files(), gated="manual", granted=(), downloads=10)
        yield made


@pytest.fixture
def remote(local: LocalHub) -> Hub:
    return Hub(local.url, local.GOOD_TOKEN)


async def open_pane(pilot: Pilot[Any]) -> TransfersPane:
    """Open the pane and wait until its list is loaded."""
    await ready(pilot)
    await pilot.press("3")
    app = pilot.app
    assert isinstance(app, MlxkApp)
    await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane) and app.transfers.ready)
    assert isinstance(app.screen, TransfersPane)
    return app.screen


async def found(pilot: Pilot[Any], words: str) -> SearchScreen:
    """Search and wait for the results."""
    await pilot.press("slash")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, SearchScreen))
    screen = pilot.app.screen
    assert isinstance(screen, SearchScreen)
    await pilot.press(*words, "enter")
    await wait_until(pilot, lambda: bool(screen.results.keys) and screen.results.keys[0] != STARTERS[0].name)
    return screen


async def asked(pilot: Pilot[Any]) -> PreflightDialog:
    """Wait for the preflight card of a pull."""

    def there() -> bool:
        screen = pilot.app.screen
        return isinstance(screen, PreflightDialog) and (screen.plan or screen.error) is not None

    await wait_until(pilot, there)
    screen = pilot.app.screen
    assert isinstance(screen, PreflightDialog)
    return screen


def state_of(app: MlxkApp, name: str) -> str:
    return next((t.state.value for t in app.transfers.transfers if t.job.name == name), "not there")


async def test_model_is_found_inspected_and_pulled_with_keys(
    make_app: AppMaker, cache: Cache, remote: Hub
) -> None:
    app = make_app(cache, hub=remote)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        assert STARTERS[0].name in text(app)  # nothing is cached: small models are offered
        await wait_until(pilot, lambda: app.transfers.ready)
        await pilot.press("p")
        await wait_until(pilot, lambda: isinstance(app.screen, SearchScreen))
        assert isinstance(app.screen, SearchScreen)
        assert app.screen.results.keys == [starter.name for starter in STARTERS]
        await pilot.press("escape")
        await open_pane(pilot)
        assert "No transfers yet" in text(app)
        search = await found(pilot, "tiny")
        assert search.results.keys == [TINY, GATED]
        assert "1.2k" in text(app)
        assert "gated" in text(app)
        await wait_until(pilot, lambda: search.results.has_focus)
        assert "Details" in text(app)
        await pilot.press("enter")
        await asked(pilot)
        for said in ("Download", "in 5 files", "free", "fits", "apache-2.0"):
            assert said in text(app)
        await pilot.press("enter")
        await wait_until(pilot, lambda: state_of(app, TINY) == "done")
        await wait_until(pilot, lambda: "cached" in text(app) or "queued" not in text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane))
        assert "pulled just now" in text(app)
        await wait_until(pilot, lambda: [e.name for e in app.library.entries.values()] == [TINY])


@pytest.mark.slow
async def test_model_is_found_and_pulled_with_the_mouse(
    make_app: AppMaker, cache: Cache, remote: Hub
) -> None:
    app = make_app(cache, hub=remote)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await pilot.click("#tabs", offset=(26, 0))
        await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane))
        await pilot.click("FooterKey")
        await wait_until(pilot, lambda: isinstance(app.screen, SearchScreen))
        await pilot.press(*"tiny")
        screen = app.screen
        assert isinstance(screen, SearchScreen)
        await wait_until(pilot, lambda: screen.results.keys == [TINY, GATED])
        await pilot.click("#search-results", offset=(10, 0), times=2)
        await asked(pilot)
        await pilot.click("#proceed")
        await wait_until(pilot, lambda: state_of(app, TINY) == "done")
        await pilot.click(offset=(0, 0))  # outside the frame
        await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane))


@pytest.mark.slow
async def test_model_that_cannot_be_pulled_shows_the_reason(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub
) -> None:
    app = make_app(cache, hub=remote)
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await open_pane(pilot)
        search = await found(pilot, ("o", "r", "g", "slash", "n", "o"))  # type: ignore[arg-type]  # key names
        assert search.results.keys == ["org/no"]  # a full name is used unchanged
        await wait_until(pilot, lambda: search.results.has_focus)
        await pilot.press("enter")
        card = await asked(pilot)
        assert card.error is not None
        assert "is not on 127.0.0.1" in flat(app)
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.screen is search)
        await pilot.press("slash")
        search.input.value = "gated"
        await pilot.press("enter")
        await wait_until(pilot, lambda: search.results.keys == [GATED] and search.results.has_focus)
        await pilot.press("enter")
        await asked(pilot)
        assert "is gated, and the token's account has no access yet" in flat(app)
        assert "press r to retry" in flat(app)
        assert app.screen.query_one("#proceed").disabled
        local.repos[GATED].granted = frozenset({"tester"})
        await pilot.press("r")
        await wait_until(pilot, lambda: not app.screen.query_one("#proceed").disabled)
        assert "gated, your account has access" in flat(app)
        await pilot.press("escape", "escape")
        assert not app.transfers.transfers
        assert not cache.root.joinpath("models--closed--Gated-Tiny").exists()


@pytest.mark.slow
async def test_unavailable_actions_show_a_message(make_app: AppMaker, hub: Path) -> None:
    app = make_app(three(hub))
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await open_pane(pilot)
        await pilot.press("P")
        await wait_until(pilot, lambda: "Push is experimental and switched off" in flat(app))
        await pilot.press("slash", *"qwen", "enter")
        await wait_until(pilot, lambda: "cannot be reached" in flat(app))
        assert "retry" in text(app)


async def test_pausing_resuming_and_cancelling_keep_the_bytes(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub
) -> None:
    local.rate_per_connection = SLOW
    app = make_app(cache, hub=remote)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await open_pane(pilot)
        transfer, _ = app.transfers.add(Pull(LARGE))
        await wait_until(pilot, lambda: transfer.bytes_done > 30_000)
        assert "↓1" in text(app).splitlines()[0]
        assert "Rate" in text(app)
        await pilot.press("space")
        await wait_until(pilot, lambda: not app.transfers._tasks)
        assert "paused" in text(app)
        had = transfer.bytes_done
        await pilot.press("space")
        await wait_until(pilot, lambda: transfer.state is TransferState.RUNNING and transfer.bytes_done > had)
        await pilot.press("x")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "stays on disk" in flat(app)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane))
        assert transfer.state is TransferState.RUNNING
        await pilot.press("x")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: transfer.state is TransferState.CANCELLED)
        assert list(cache.root.rglob("*.incomplete"))
        local.rate_per_connection = None
        await pilot.press("r")
        await wait_until(pilot, lambda: state_of(app, LARGE) == "done")
        await pilot.press("c")
        await wait_until(pilot, lambda: not app.transfers.transfers)


@pytest.mark.slow
async def test_quitting_asks_and_transfers_resume_at_the_next_start(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub
) -> None:
    local.rate_per_connection = SLOW
    app = make_app(cache, hub=remote)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await open_pane(pilot)
        transfer, _ = app.transfers.add(Pull(LARGE))
        await wait_until(pilot, lambda: transfer.bytes_done > 400_000)
        await pilot.press("q")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "The transfer resumes at the next start." in flat(app)
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: app._exit)
    local.rate_per_connection = None
    begun = len(local.requests)
    again = make_app(cache, hub=remote)
    async with again.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await wait_until(pilot, lambda: state_of(again, LARGE) == "done")
        # The message appears in the current pane, Models.
        await wait_until(pilot, lambda: any("Large-4bit" in said for said in toasts(again)))
    sent = sum(request.bytes_sent for request in list(local.requests)[begun:] if "extra.bin" in request.path)
    assert sent < SIZE - 200_000


@pytest.mark.slow
async def test_model_is_not_shown_as_broken_while_it_is_pulled(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub
) -> None:
    weights = safetensors({"model.embed_tokens.weight": ("F16", (1_000, 4_000))})
    local.add_repo(HEAVY, {**model_files(), "model.safetensors": weights})
    local.rate_per_connection = SLOW
    key = f"models--{HEAVY.replace('/', '--')}"
    app = make_app(cache, hub=remote, temporary=True)

    def verdict() -> Verdict | None:
        return app.library.entries[key].state if key in app.library.entries else None

    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await open_pane(pilot)
        transfer, _ = app.transfers.add(Pull(HEAVY))
        await wait_until(pilot, lambda: transfer.bytes_done > 100_000)
        await app.library.refresh()
        assert verdict() is Verdict.DOWNLOADING
        await pilot.press("2")
        await wait_until(pilot, lambda: "Downloading" in text(app))
        assert "See Transfers for progress." in flat(app)
        assert "Broken" not in text(app)
        assert "●" not in text(app).splitlines()[1]  # the tab shows nothing to repair
        app.transfers.pause(transfer.id)
        await wait_until(pilot, lambda: verdict() is Verdict.BAD and "Broken" in text(app))
        app.transfers.resume(transfer.id)
        await wait_until(pilot, lambda: verdict() is Verdict.DOWNLOADING)
        await pilot.press("q")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "The transfer will be deleted with the demo." in flat(app)
        await pilot.press("escape")
        local.rate_per_connection = None
        seen: list[Verdict | None] = []

        def arrived() -> bool:
            seen.append(verdict())
            return seen[-1] is Verdict.GOOD

        await wait_until(pilot, arrived)
        assert Verdict.BAD not in seen


@pytest.mark.slow
async def test_failed_transfer_shows_the_reason_and_can_be_retried(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub
) -> None:
    evil = "a [bold]\x1b]0;x\x07[/nope] \u202e b"
    app = make_app(cache, hub=remote)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await open_pane(pilot)
        app.transfers.add(Pull(GATED))
        await wait_until(pilot, lambda: state_of(app, GATED) == "failed")
        await wait_until(pilot, lambda: "● 1" in text(app) or "●1" in text(app))
        assert "is gated" in flat(app)
        assert "retry" in text(app)
        local.repos[GATED].granted = frozenset({"tester"})
        await pilot.press("r")
        await wait_until(pilot, lambda: state_of(app, GATED) == "done")
        # A temporary network fault is retried automatically.
        local.faults.add(Fault(kind="status", path="/api/models/*", status=503, times=None))
        app.transfers.add(Pull(TINY))
        await pilot.press("g")
        await wait_until(pilot, lambda: "retrying in" in flat(app))
        local.faults.clear()
        await pilot.press("r")  # or wait
        await wait_until(pilot, lambda: state_of(app, TINY) == "done")
        # Names of a hub are only text.
        last, _ = app.transfers.add(Pull(f"o/{evil}@{evil}"))
        await wait_until(pilot, lambda: last.state is TransferState.FAILED)
        await wait_until(pilot, lambda: "[bold]" in text(app))
        assert "\x1b" not in text(app)
        await pilot.press("1")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsPane))


@pytest.mark.slow
async def test_transfer_details_on_a_narrow_screen_and_reordering(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub
) -> None:
    local.rate_per_connection = SLOW
    app = make_app(cache, hub=remote, parallel_transfers=1)
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        pane = await open_pane(pilot)
        transfer, _ = app.transfers.add(Pull(LARGE))
        await wait_until(pilot, lambda: transfer.bytes_done > 30_000)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(app.screen, TransferScreen))
        await wait_until(pilot, lambda: "extra.bin" in text(app))
        await pilot.press("space")
        await wait_until(pilot, lambda: transfer.state is TransferState.PAUSED)
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane))
        await pilot.press("space", "enter")
        await wait_until(pilot, lambda: isinstance(app.screen, TransferScreen))
        await pilot.resize_terminal(*WIDE)  # there is space for both again
        await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane))
        await pilot.press("escape")

        for name in ("o/b", "o/c"):
            app.transfers.add(Pull(name))
        await wait_until(pilot, lambda: len(pane.listed.keys) == 3)
        await pilot.press("G", "K")
        assert [t.job.name for t in app.transfers.transfers] == [LARGE, "o/c", "o/b"]
        await wait_until(pilot, lambda: text(app).index("· c") < text(app).index("· b"))
        await pilot.press("J")
        assert [t.job.name for t in app.transfers.transfers] == [LARGE, "o/b", "o/c"]

        for number in range(197):
            app.transfers.add(Pull(f"org/Model-{number:03}"))
        await wait_until(pilot, lambda: len(pane.listed.keys) == 200)
        await pilot.press("G")
        await wait_until(pilot, lambda: "Model-196" in text(app))
        drawn: list[str] = []
        draw = pane.listed.row_line

        def counted(row: ListRow, number: int, width: int) -> list[Part]:
            drawn.append(row.key)
            return draw(row, number, width)

        pane.listed.row_line = counted  # type: ignore[method-assign]  # counted, and drawn all the same
        pane.listed.refresh()
        await wait_until(pilot, lambda: bool(drawn))
        assert len(set(drawn)) < 40


@pytest.mark.slow
async def test_broken_model_is_repaired_with_one_key(
    make_app: AppMaker, hub: Path, local: LocalHub, remote: Hub
) -> None:
    files = model_files()
    for name in ("org/Broken-A-4bit", "org/Broken-B-4bit"):
        local.add_repo(name, files)
        repo = HfCache(hub).repo(name)
        repo.add(files)
        next(repo.blobs.glob("*")).unlink()
    app = make_app(Cache(hub), hub=remote)

    def sound() -> int:
        return sum(entry.intact for entry in app.library.entries.values())

    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await ready(pilot)
        await wait_until(pilot, lambda: [e.state for e in app.library.entries.values()] == [Verdict.BAD] * 2)
        await wait_until(pilot, lambda: app.transfers.ready)
        for number, where in enumerate(("models", "health"), 1):
            await pilot.press(str(number))
            await wait_until(pilot, lambda where=where: app.current_mode == where)  # type: ignore[misc]  # bound now
            await pilot.press("p")
            await wait_until(pilot, lambda number=number: sound() == number)  # type: ignore[misc]  # as above
            await wait_until(pilot, lambda: any("Broken-" in said for said in toasts(app)))


async def test_second_app_shows_the_transfers_read_only(
    make_app: AppMaker, cache: Cache, tmp_path: Path
) -> None:
    import platformdirs

    path = state_file(platformdirs.user_state_path("mlxk-tui"), cache.root)
    first = QueueFile(path)
    assert first.claim()
    try:
        app = make_app(cache)
        async with app.run_test(size=NARROW, notifications=True) as pilot:
            await ready(pilot)
            await pilot.press("3")
            await wait_until(pilot, lambda: "Transfers run in another window" in text(app))
    finally:
        first.release()


@pytest.mark.slow
async def test_folder_is_pushed_but_never_to_a_public_repo(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub, tmp_path: Path
) -> None:
    local.add_repo("tester/public", {"README.md": b"# Public"})
    (tmp_path / "model").mkdir()
    for name, content in model_files().items():
        (tmp_path / "model" / name).write_bytes(content)
    app = make_app(cache, hub=remote, push=True)
    async with app.run_test(size=NARROW, notifications=True) as pilot:
        await open_pane(pilot)
        await pilot.press("P")
        await wait_until(pilot, lambda: isinstance(app.screen, PushForm))
        form = app.screen
        assert isinstance(form, PushForm)
        form.folder.value = "./nowhere"
        await wait_until(pilot, lambda: "does not exist" in flat(app))
        form.folder.value = "./model"
        await wait_until(pilot, lambda: "5 files" in text(app) and "no problems found" in text(app))
        form.repo.value = "tester/public"
        await wait_until(pilot, lambda: not form.proceed.disabled)
        await pilot.click("#proceed")
        await wait_until(pilot, lambda: "public" in flat(app).partition("tester/public is")[2])
        form.repo.value = "tester/mine"
        form.repo.focus()
        await pilot.press("enter")
        await wait_until(pilot, lambda: "is not on the hub" in flat(app))
        await pilot.click("#push-create")
        await wait_until(pilot, lambda: "is not on the hub" not in flat(app))
        await pilot.click("#proceed")
        await wait_until(pilot, lambda: isinstance(app.screen, ReviewDialog))
        for said in ("+ config.json", "+ model.safetensors", "+5 new", "Creates a private repo"):
            assert said in text(app)
        assert "tester/mine" not in local.repos
        assert not app.transfers.transfers
        await pilot.press("right", "enter")
        await wait_until(pilot, lambda: state_of(app, "tester/mine") == "done")
        assert local.repos["tester/mine"].private
        assert local.read("tester/mine", "config.json") == model_files()["config.json"]


async def test_rate_limits_are_set_with_keys_and_apply_at_once(
    make_app: AppMaker, cache: Cache, local: LocalHub, remote: Hub
) -> None:
    app = make_app(cache, hub=remote)
    async with app.run_test(size=WIDE, notifications=True) as pilot:
        await open_pane(pilot)
        app.context.rate_limits.set_total(10_000.0)
        transfer, _ = app.transfers.add(Pull(LARGE))
        await wait_until(pilot, lambda: transfer.bytes_done > 0)
        assert "limit 10.0 KB/s" in text(app)
        await pilot.press("l")
        await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
        await pilot.press(*"fast")
        await wait_until(pilot, lambda: "from 0.001" in flat(app))
        await pilot.press("enter")
        assert isinstance(app.screen, InputDialog)
        await pilot.press("ctrl+u", *"0.02", "enter")
        await wait_until(pilot, lambda: isinstance(app.screen, TransfersPane))
        assert isinstance(transfer.job, Pull)
        assert transfer.job.rate_limit == 20_000
        await wait_until(pilot, lambda: "20.0 KB/s" in text(app))
        await pilot.press("L")
        await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
        await pilot.press("ctrl+u", "enter")
        await wait_until(pilot, lambda: app.context.rate_limits.total is None)
        await pilot.press("l")
        await wait_until(pilot, lambda: isinstance(app.screen, InputDialog))
        await pilot.press("ctrl+u", "enter")
        await wait_until(pilot, lambda: state_of(app, LARGE) == "done")
