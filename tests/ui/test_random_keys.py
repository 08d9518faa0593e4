"""Random keys at any speed do not crash the app."""

from __future__ import annotations

import random
from typing import Any

import pytest
from textual.worker import WorkerState

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ui.shell import keys
from mlxk_tui.ui.widgets.dialogs import Dialog
from tests.ui.conftest import AppMaker, ready, wait_until

PRESSES = 120


def every_key() -> list[str]:
    """Return the keys of every pane and dialog except those that quit, and some unbound keys."""
    found = {
        key.strip()
        for group in keys.binding_groups(MlxkApp)
        for binding in group.bindings
        if not binding.id.startswith("app.quit")  # type: ignore[union-attr]  # another test: each has one
        for key in binding.key.split(",")
    }
    # Deleting is allowed here, because the cache is a copy.
    return sorted(
        (found - {"q", "ctrl+c", "ctrl+q"}) | {"tab", "shift+tab", "a", "colon", "z", "f3", "delete"}
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
async def test_random_keys_do_not_crash_the_app(
    make_app: AppMaker, sample: Cache, size: tuple[int, int]
) -> None:
    chance = random.Random(size[0])
    choice = every_key()
    app = make_app(sample)
    failed: list[Any] = []
    async with app.run_test(size=size, notifications=True) as pilot:
        await ready(pilot)
        pressed = 0
        while pressed < PRESSES:
            burst = [chance.choice(choice) for _ in range(chance.randint(1, 12))]
            if chance.random() < 0.3:  # so that it does not stay in one dialog forever
                burst.append("escape")
            for key in burst:
                app.simulate_key(key)
            pressed += len(burst)
            await pilot.pause()
            failed += [worker for worker in app.workers if worker.state is WorkerState.ERROR]
            for task in list(app.tasks.running):  # V reads the whole sample, which takes a minute
                app.tasks.cancel(task)
        await wait_until(pilot, lambda: not app._exception)
        for _ in range(6):
            await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert app.is_running
        assert not failed
        assert not [toast for toast in app._notifications if "Please report" in toast.message]
        await pilot.press("escape", "f1")
        await wait_until(pilot, lambda: not app.tasks.running)
        await wait_until(pilot, lambda: app.current_mode == "models")
