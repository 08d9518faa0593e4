"""Keys after `q` in any pane do not disturb the exit."""

from __future__ import annotations

import os
import random

import pytest
from textual import events
from textual.keys import key_to_character
from textual.widgets import Input, TextArea

from mlxk_tui.app import MlxkApp
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ui.shell import keys
from mlxk_tui.ui.shell.registry import PANES
from tests.support.waiting import until
from tests.ui.conftest import AppMaker, ready
from tests.ui.test_random_keys import every_key


def opening(pane: str) -> list[str]:
    """Return the keys of a pane and the global ones; each could open something."""
    groups = [group for group in keys.binding_groups(MlxkApp) if group.title.lower() in {pane, "everywhere"}]
    found = {binding.key.split(",")[0].strip() for group in groups for binding in group.bindings}
    return sorted(found & set(every_key()) - {"ctrl+p"})  # it overtakes q, which is typed into the palette


OPENING = [
    *(("models", "u"), ("health", "question_mark"), ("transfers", "n")),
    *(("chat", "s"), ("server", "e"), ("health", "V")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("pane", "key"), OPENING)
async def test_key_after_q_opens_nothing(make_app: AppMaker, sample: Cache, pane: str, key: str) -> None:
    await press_behind_q(make_app, sample, pane, key)


KEYS = None if os.environ.get("MLXK2_LONG_TESTS") == "1" else 6
"""How many keys of each pane are tried; all with MLXK2_LONG_TESTS=1."""


@pytest.mark.slow
@pytest.mark.parametrize("pane", [pane.id for pane in PANES])
async def test_any_key_after_q_is_harmless(make_app: AppMaker, sample: Cache, pane: str) -> None:
    keys_of_pane = opening(pane)
    for key in random.Random(pane).sample(keys_of_pane, KEYS or len(keys_of_pane)):
        await press_behind_q(make_app, sample, pane, key)


async def press_behind_q(make_app: AppMaker, sample: Cache, pane: str, key: str) -> None:
    app = make_app(sample)
    async with app.run_test(size=(120, 40), notifications=True) as pilot:
        await ready(pilot)
        app.action_pane(pane)
        await pilot.press("escape", "escape")
        leave = "ctrl+q" if isinstance(app.focused, (Input, TextArea)) else "q"  # q would be typed
        # Both at once, as typed quickly or pasted; the second is read before the first is handled.
        for each in (leave, key):
            app.post_message(events.Key(each, key_to_character(each)))
        await until(lambda: app._exit)
    assert app._exception is None, key
