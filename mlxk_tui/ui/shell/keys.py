"""Key bindings as data: the ids that a keymap may use, the help for the focus, and docs/keys.md.

A widget or screen names its group with Textual's `BINDING_GROUP_TITLE`. Help reads it from the nodes on the
screen. The page and the ids come from every class of the interface that declares `BINDINGS`: there is no
list of those classes that could go stale.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.keys import format_key

from mlxk_tui.ui.shell.registry import PANES

_UI = __name__.partition(".shell.")[0]
_PACKAGES = (*(pane.factory.split(".")[2] for pane in PANES), "inspector", "shell", "widgets")
"""Packages of the interface in the order of the page."""


@dataclass(frozen=True)
class BindingGroup:
    """The bindings that one class declares."""

    title: str
    bindings: list[Binding]


def binding_groups(app: type[App[Any]]) -> list[BindingGroup]:
    """Return the groups in the order of the page: the app's, the panes', then those that panes share.

    It imports every module of the interface, so nothing calls it at a start without a keymap.

    Args:
        app: the app's class, which lives outside the interface's packages.
    """
    return [_group(owner) for owner in (app, *sorted(_classes_with_bindings(), key=_page_order))]


def _page_order(owner: type[DOMNode]) -> tuple[int, bool, str]:
    """Sort by package; within one, the pane first, then by title."""
    is_pane = any(pane.factory == f"{owner.__module__}:{owner.__name__}" for pane in PANES)
    return _PACKAGES.index(owner.__module__.split(".")[2]), not is_pane, owner.BINDING_GROUP_TITLE or ""


def _classes_with_bindings() -> Iterator[type[DOMNode]]:
    for module in walk_packages(import_module(_UI).__path__, f"{_UI}."):
        members = vars(import_module(module.name)).values()
        own = (value for value in members if isinstance(value, type) and value.__module__ == module.name)
        yield from (value for value in own if issubclass(value, DOMNode) and "BINDINGS" in vars(value))


def _group(owner: type[DOMNode]) -> BindingGroup:
    declared = vars(owner).get("BINDINGS", ())
    bindings = [binding for binding in declared if isinstance(binding, Binding)]
    return BindingGroup(owner.BINDING_GROUP_TITLE or "", bindings)


def known_ids(app: type[App[Any]]) -> set[str]:
    """Return the ids of all bindings, for keymaps."""
    return {binding.id for group in binding_groups(app) for binding in group.bindings if binding.id}


def shown_keys(binding: Binding) -> str:
    """Return the keys of a binding as people write them."""
    return " ".join(dict.fromkeys(_key_label(key.strip()) for key in binding.key.split(",")))


_KEY_LABELS = {
    "escape": "esc",
    "enter": "⏎",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "question_mark": "?",
    "slash": "/",
}


def _key_label(key: str) -> str:
    if key in _KEY_LABELS:
        return _KEY_LABELS[key]
    if key.startswith("ctrl+"):
        return "^" + key[5:]
    return key if len(key) == 1 else format_key(key)


def help_sections(app: App[Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the bindings that are active now, by heading: (keys, description) pairs.

    The screen comes first, then what is focused on it, then the app.
    """
    sections: dict[int, tuple[str, list[tuple[str, str]]]] = {}
    seen: set[tuple[int, str]] = set()
    active_bindings = app.screen.active_bindings.values()
    for active in active_bindings:
        binding, node = active.binding, active.node
        if not binding.description or (binding.id is None and not binding.show):
            continue
        key = (id(node), binding.action)
        if key in seen:
            continue
        seen.add(key)
        same = [
            other.binding.key
            for other in active_bindings
            if other.node is node and other.binding.action == binding.action
        ]
        section = sections.setdefault(id(node), (node.BINDING_GROUP_TITLE or "Here", []))
        text = binding.tooltip or binding.description
        section[1].append((" ".join(dict.fromkeys(_key_label(each) for each in same)), text))
    first = id(app.screen)
    return sorted(sections.values(), key=lambda section: section is not sections.get(first))


def document(app: type[App[Any]]) -> str:
    """Return docs/keys.md."""
    parts = [
        "# Keys",
        "",
        "Generated from the bindings by `python scripts/keys_page.py`; a test fails when it is out of date.",
        "Every key can be changed in the config file by its id:",
        "",
        "```toml",
        "[keymap]",
        '"models.delete" = "D"',
        '"list.down" = "down,j,n"',
        "```",
    ]
    for group in binding_groups(app):
        parts += ["", f"## {group.title}", "", "| keys | what they do | id |", "|---|---|---|"]
        for binding in group.bindings:
            keys = " ".join(f"`{key}`" for key in shown_keys(binding).split(" "))
            parts.append(f"| {keys} | {binding.tooltip or binding.description} | `{binding.id}` |")
    return "\n".join(parts) + "\n"
