"""Draw the pictures of the README from the demo: `.venv/bin/python scripts/readme_pictures.py`.

Runs the app without a terminal, presses keys, and writes `docs/images/*.png`. Requires `rsvg-convert`
(Debian's librsvg2-bin) and the font Fira Code. The engine answers, so the figures differ from run to run.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from mlxk_tui import settings
from mlxk_tui.app import MlxkApp
from mlxk_tui.demo.session import DemoSession

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE = (120, 34)
_ZOOM = "1.2"
_TICK_S = 0.1
_PATIENCE_S = 180.0
_QUESTIONS = ("What do the panes do?", "Show me Python code")


def text_of(app: MlxkApp) -> str:
    """Return the text on the screen."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def wait_for(pilot: Pilot[Any], condition: Callable[[MlxkApp], bool]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it did not.
        TypeError: another app runs.
    """
    app = pilot.app
    if not isinstance(app, MlxkApp):
        raise TypeError(app)
    for _ in range(int(_PATIENCE_S / _TICK_S)):
        await pilot.pause(_TICK_S)
        if condition(app):
            return
    raise TimeoutError(text_of(app))


def save(app: MlxkApp, name: str) -> None:
    """Write a picture of the screen."""
    svg = app.export_screenshot(title=app.title)
    # rsvg-convert drops no-break spaces at the start of a text.
    svg = svg.replace("&#160;", " ").replace("<text ", '<text xml:space="preserve" ')
    with tempfile.NamedTemporaryFile(suffix=".svg", mode="w", encoding="utf-8") as stream:
        stream.write(svg)
        stream.flush()
        target = IMAGES / f"{name}.png"
        subprocess.run(  # noqa: S603 - arguments of our own
            ["rsvg-convert", "-z", _ZOOM, stream.name, "-o", target],  # noqa: S607 - as in the shell
            check=True,
        )


async def draw(demo: DemoSession) -> None:
    """Draw all panes."""
    loaded = settings.for_demo(settings.load(), demo.home)
    app = MlxkApp(loaded, demo.cache, label="hub", remember=False, state=demo.state, temporary=True)
    async with app.run_test(size=SIZE) as pilot:
        await wait_for(pilot, lambda app: "26 models" in text_of(app) and "·  ·  ·" not in text_of(app))
        await pilot.press(*"jjjjjjjjjjjjjjjjj")
        await wait_for(pilot, lambda app: "Ready to run" in text_of(app))
        save(app, "models")
        await pilot.press("2", *"jj")
        await wait_for(pilot, lambda app: "Broken" in text_of(app))
        save(app, "health")
        await pilot.press("3", "slash")
        await wait_for(pilot, lambda app: "Small models" in text_of(app))
        await pilot.press(*"qwen", "enter")
        await wait_for(pilot, lambda app: "12 models" in text_of(app))
        await pilot.press(*"jjjjjjj", "enter")
        await wait_for(pilot, lambda app: "Download" in text_of(app))
        await pilot.press("enter", "escape")
        await wait_for(pilot, lambda app: any(t.bytes_done > 4_000_000 for t in app.transfers.transfers))
        save(app, "transfers")
        await pilot.press("4")
        for question in _QUESTIONS:
            await wait_for(pilot, lambda app: "Ask anything" in text_of(app))
            app.screen.query_one("Composer").text = question  # type: ignore[attr-defined]  # the composer's class
            await pilot.press("enter")
            await wait_for(pilot, lambda app: "tok/s" in text_of(app) and " stop" not in text_of(app))
        save(app, "chat")
        await pilot.press("escape", "f5", "s")
        await wait_for(pilot, lambda app: "first request" in text_of(app))
        save(app, "server")


def main() -> None:
    """Draw all pictures.

    Raises:
        subprocess.CalledProcessError: `rsvg-convert` failed.
    """
    with DemoSession() as demo:
        asyncio.run(draw(demo))


if __name__ == "__main__":
    main()
