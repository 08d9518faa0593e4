"""The app's style sheet, which is parsed once for each set of variables.

Textual 8.2.8 parses every rule again whenever a screen is shown for the first time, and twice at the
start, though rules depend on nothing but their text and the theme's variables. And for each widget that gets
its styles, every rule is looked up in a set, through a `__hash__` written in Python.
"""

from __future__ import annotations

from textual.cache import LRUCache
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

_Variables = frozenset[tuple[str, str]]
_Rules = LRUCache[tuple[object, ...], list[RuleSet]]

_SOURCES = 512
"""Sources (a widget class or a file) whose rules are kept for a theme; Textual itself keeps 64."""
_THEMES = 4
"""Themes whose rules are kept: going back to one costs no parsing."""

_parsed: LRUCache[_Variables, _Rules] = LRUCache(_THEMES)

# By identity as well: a fifth of the time that applying styles takes.
RuleSet.__hash__ = object.__hash__  # type: ignore[method-assign]  # that is what it does


class Sheet(Stylesheet):
    """A style sheet that knows what it has parsed; for what changes nothing, it does nothing."""

    def __init__(self, *, variables: dict[str, str] | None = None) -> None:
        super().__init__(variables=variables)
        self._use_parsed()

    def _use_parsed(self) -> None:
        key = frozenset(self._variables.items())
        known = _parsed.get(key)
        if known is None:
            known = _parsed[key] = LRUCache(_SOURCES)
        self._parse_cache = known

    def set_variables(self, variables: dict[str, str]) -> None:
        """Take the variables of another theme."""
        if variables == self._variables:
            return
        self._parse_cache = LRUCache(1)  # Textual empties it, and the one of a theme is to stay
        super().set_variables(variables)
        self._use_parsed()

    def reparse(self) -> None:
        """Take over what changed in sources and variables.

        Raises:
            StylesheetError: as Textual's own.
        """
        self.parse()
