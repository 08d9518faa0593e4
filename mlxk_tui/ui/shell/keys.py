"""Keys as data: every binding there is, the help of a place, and the page of the documentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from textual.app import App
from textual.binding import Binding, BindingType
from textual.keys import format_key

PLACES = (
    ("Everywhere", "mlxk_tui.app:MlxkApp"),
    ("Models", "mlxk_tui.ui.models.pane:ModelsPane"),
    ("Models: the table", "mlxk_tui.ui.models.table:ModelTable"),
    ("Models: the filter", "mlxk_tui.ui.models.filter_bar:FilterInput"),
    ("Health", "mlxk_tui.ui.health.pane:HealthPane"),
    ("Health: the list", "mlxk_tui.ui.health.findings:HealthList"),
    ("Transfers", "mlxk_tui.ui.transfers.pane:TransfersPane"),
    ("Transfers: one of them", "mlxk_tui.ui.transfers.detail:DetailBody"),
    ("Transfers: one of them as a screen of its own", "mlxk_tui.ui.transfers.screen:TransferScreen"),
    ("Transfers: the search of the hub", "mlxk_tui.ui.transfers.search:SearchScreen"),
    ("Transfers: the words to search for", "mlxk_tui.ui.transfers.search:HubSearchInput"),
    ("Transfers: before a pull", "mlxk_tui.ui.transfers.preflight:Preflight"),
    ("Transfers: the push form", "mlxk_tui.ui.transfers.push_form:PushForm"),
    ("Chat", "mlxk_tui.ui.chat.pane:ChatPane"),
    ("Chat: the composer", "mlxk_tui.ui.chat.composer:Composer"),
    ("Chat: the conversation", "mlxk_tui.ui.chat.transcript.view:ConversationView"),
    ("Chat: the list of chats", "mlxk_tui.ui.chat.session_list:SessionList"),
    ("Chat: the search", "mlxk_tui.ui.chat.session_list:SessionSearchInput"),
    ("Chat: the list as a screen of its own", "mlxk_tui.ui.chat.sessions_screen:SessionsScreen"),
    ("Chat: the settings", "mlxk_tui.ui.chat.settings_form:SettingsDialog"),
    ("Chat: a line of text", "mlxk_tui.ui.widgets.choice_dialogs:LineDialog"),
    ("Chat: a choice", "mlxk_tui.ui.widgets.choice_dialogs:ChoiceDialog"),
    ("Chat: a choice's filter", "mlxk_tui.ui.widgets.choice_dialogs:OptionFilter"),
    ("Server", "mlxk_tui.ui.server.pane:ServerPane"),
    ("Server: the tabs", "mlxk_tui.ui.server.side_panel:SideBody"),
    ("Server: the tabs as a screen of their own", "mlxk_tui.ui.server.screen:ServerScreen"),
    ("Server: where it listens", "mlxk_tui.ui.server.form:ServerForm"),
    ("Disk use", "mlxk_tui.ui.inspector.screens:DiskUseScreen"),
    ("Every list", "mlxk_tui.ui.widgets.row_list:RowList"),
    ("The inspector", "mlxk_tui.ui.inspector.inspector:InspectorBody"),
    ("The inspector as a screen of its own", "mlxk_tui.ui.inspector.screens:InspectorScreen"),
    ("Dialogs", "mlxk_tui.ui.widgets.dialogs:Dialog"),
    ("The clone form", "mlxk_tui.ui.inspector.clone_dialog:CloneDialog"),
    ("Help", "mlxk_tui.ui.widgets.dialogs:Help"),
)
"""Where keys are bound: a heading and the class."""


def bindings_of(place: str) -> list[Binding]:
    """Return the bindings that a class itself declares."""
    module, _, name = place.partition(":")
    declared: Sequence[BindingType] = getattr(import_module(module), name).__dict__.get("BINDINGS", ())
    return [binding for binding in declared if isinstance(binding, Binding)]


def _all() -> Iterator[Binding]:
    for _, place in PLACES:
        yield from bindings_of(place)


def known_ids() -> set[str]:
    """Return the id of every binding, for keymaps."""
    return {binding.id for binding in _all() if binding.id}


def shown_keys(binding: Binding) -> str:
    """Return the keys of a binding as people write them."""
    return " ".join(dict.fromkeys(_shown(key.strip()) for key in binding.key.split(",")))


_NAMES = {
    "escape": "esc",
    "enter": "⏎",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "question_mark": "?",
    "slash": "/",
}


def _shown(key: str) -> str:
    if key in _NAMES:
        return _NAMES[key]
    if key.startswith("ctrl+"):
        return "^" + key[5:]
    return key if len(key) == 1 else format_key(key)


def help_sections(app: App[Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what works at the focus now, nearest first: heading and (keys, what they do)."""
    sections: dict[int, tuple[str, list[tuple[str, str]]]] = {}
    seen: set[tuple[int, str]] = set()
    titles = {place.partition(":")[2]: heading for heading, place in PLACES}
    for active in app.screen.active_bindings.values():
        binding, node = active.binding, active.node
        if not binding.description or (binding.id is None and not binding.show):
            continue
        key = (id(node), binding.action)
        if key in seen:
            continue
        seen.add(key)
        same = [
            other.binding.key
            for other in app.screen.active_bindings.values()
            if other.node is node and other.binding.action == binding.action
        ]
        heading = next(
            (titles[base.__name__] for base in type(node).__mro__ if base.__name__ in titles), "Here"
        )
        section = sections.setdefault(id(node), (heading, []))
        text = binding.tooltip or binding.description
        section[1].append((" ".join(dict.fromkeys(_shown(each) for each in same)), text))
    # The pane itself first, then what is focused inside it, then what works everywhere.
    first = id(app.screen)
    return sorted(sections.values(), key=lambda section: section is not sections.get(first))


def document() -> str:
    """Return docs/keys.md."""
    parts = [
        "# Keys",
        "",
        "Made from the bindings by `python -m mlxk_tui.ui.shell.keys`; a test fails when it is stale.",
        "Every key can be changed in the config file by its id:",
        "",
        "```toml",
        "[keymap]",
        '"models.delete" = "D"',
        '"list.down" = "down,j,n"',
        "```",
    ]
    for heading, place in PLACES:
        bindings = bindings_of(place)
        if not bindings:
            continue
        parts += ["", f"## {heading}", "", "| keys | what they do | id |", "|---|---|---|"]
        for binding in bindings:
            keys = " ".join(f"`{key}`" for key in shown_keys(binding).split(" "))
            parts.append(f"| {keys} | {binding.tooltip or binding.description} | `{binding.id}` |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201 - this is what it is for
