"""The style sheet: each rule is parsed once per theme, and themes still change the colors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from textual.css.parse import parse
from textual.css.stylesheet import StylesheetParseError
from textual.theme import Theme

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ui.shell.stylesheet import CachedStylesheet
from tests.ui.conftest import AppMaker, ready


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return a function that returns the number of sources parsed by Textual."""
    count = 0

    def counted(*arguments: Any, **more: Any) -> Iterator[Any]:
        nonlocal count
        count += 1
        yield from parse(*arguments, **more)

    monkeypatch.setattr("textual.css.stylesheet.parse", counted)
    return lambda: count


@pytest.mark.slow
async def test_switching_panes_parses_no_style_twice(
    make_app: AppMaker, cache: Cache, parsed: Callable[[], int]
) -> None:
    app = make_app(cache, theme="nord")
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await pilot.press("2", "3", "4", "f5", "f1")
        await pilot.pause()
        sources = len(app.stylesheet.source)
        assert 0 < parsed() <= sources + 20  # the others: a source may first be read with another precedence
        seen, color = parsed(), app.screen.styles.background
        app.register_theme(Theme("never-seen", primary="#123456", background="#0a0b0c"))
        app.theme = "never-seen"
        await pilot.pause()
        assert parsed() > seen
        assert app.screen.styles.background != color
        seen = parsed()
        app.theme = "nord"
        await pilot.pause()
        assert parsed() == seen
        assert app.screen.styles.background == color


def test_changed_variable_is_parsed_again() -> None:
    sheet = CachedStylesheet(variables={"some": "red"})
    sheet.add_source("Screen { color: $some; }")
    assert "red" in sheet.css or "ff0000" in sheet.css.lower()
    before = sheet.css
    sheet.set_variables({"some": "blue"})
    sheet.reparse()
    assert sheet.css != before
    sheet.set_variables({"some": "red"})
    sheet.reparse()
    assert sheet.css == before


def test_broken_style_sheet_is_reported_and_the_rules_are_kept() -> None:
    sheet = CachedStylesheet()
    sheet.add_source("Screen { color: red; }")
    sheet.reparse()
    rules = sheet.css
    sheet.add_source("Screen { color: nothing-like-a-color; }", read_from=("bad.tcss", ""))
    with pytest.raises(StylesheetParseError):
        sheet.reparse()
    del sheet.source["bad.tcss", ""]
    sheet.reparse()
    assert sheet.css == rules
