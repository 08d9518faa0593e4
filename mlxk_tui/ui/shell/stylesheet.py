"""The app's stylesheet, which is parsed once for each set of variables.

Textual 8.2.8 parses every rule again whenever a screen is shown for the first time, and twice at startup,
although rules depend only on their text and the theme's variables. For each widget that is styled it looks up
every rule in a set, with a `__hash__` in Python.
"""

from __future__ import annotations

from textual.cache import LRUCache
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

_Variables = frozenset[tuple[str, str]]
_Rules = LRUCache[tuple[object, ...], list[RuleSet]]

_SOURCES = 512
"""Sources (a widget class or a file) whose rules are cached per theme; Textual caches 64."""
_THEMES = 4
"""Themes whose rules are cached: returning to one parses nothing."""

_parsed: LRUCache[_Variables, _Rules] = LRUCache(_THEMES)

# Identity is equivalent, and applying styles takes a fifth of the time.
RuleSet.__hash__ = object.__hash__  # type: ignore[method-assign]  # the patch


class CachedStylesheet(Stylesheet):
    """A stylesheet with a cache of parsed rules; setting the same variables again does nothing."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._use_cached_rules()

    def _use_cached_rules(self) -> None:
        key = frozenset(self._variables.items())
        known = _parsed.get(key)
        if known is None:
            known = _parsed[key] = LRUCache(_SOURCES)
        self._parse_cache = known

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables == self._variables:
            return
        self._parse_cache = LRUCache(1)  # Textual clears it; the theme's own must survive
        super().set_variables(variables)
        self._use_cached_rules()

    def reparse(self) -> None:
        """Parse what is not cached; Textual's own parses everything again.

        Raises:
            StylesheetError: like Textual's own.
        """
        self.parse()
