"""The command palette: active actions, panes, themes, and models and chats by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

from textual import events
from textual.app import ComposeResult
from textual.command import CommandList, CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.css.styles import RenderStyles, Styles

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ui.models.pane import ModelsPane
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.keys import shown_keys
from mlxk_tui.ui.shell.registry import PANES
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen

_OWN_THEMES = ("mlxk-dark", "mlxk-light", "ansi-dark", "ansi-light")
_MAX_MODELS = 100
_MAX_CHATS = 20


class PaletteHost(Protocol):
    """What the palette needs of the app, beyond `textual.app.App`."""

    context: Context

    def action_pane(self, pane_id: str) -> None: ...


@dataclass(frozen=True)
class PaletteCommand:
    """An entry of the palette."""

    title: str
    help: str
    run: Callable[[], object]
    discover: bool = True
    """Whether it is listed before anything is typed."""


class CommandLines(CommandList, can_focus=False):
    """Textual's list, which fails on a click on a line that a shorter list no longer has (8.2.8)."""

    async def _on_click(self, event: events.Click) -> None:
        index = event.style.meta.get("option")
        if isinstance(index, int) and index >= self.option_count:
            event.prevent_default()


class Palette(CommandPalette, OverlayScreen[None]):
    """Textual's palette, which fails on keys before its list is mounted or after it was closed (8.2.8)."""

    DEFAULT_CLASSES = "--textual-command-palette"

    def __init__(self) -> None:
        super().__init__()  # without Textual's id: a closed one may still be mounted when it opens again

    def compose(self) -> ComposeResult:
        """Use `CommandLines` for Textual's list."""
        for widget in super().compose():
            yield CommandLines() if isinstance(widget, CommandList) else widget

    def _action_command_list(self, action: str) -> None:
        with suppress(KeyError):  # paging in an empty list (Textual 8.2.8)
            super()._action_command_list(action)

    def get_component_styles(self, *names: str) -> RenderStyles:
        """Return plain styles once it is closed: its search may still be running (Textual 8.2.8)."""
        if self._closed or self._closing:
            return RenderStyles(self, Styles(), Styles())
        return super().get_component_styles(*names)


class PaletteCommands(Provider):
    """The only provider."""

    _unreadable = False
    """Whether the chats failed to open; they are not tried again at every letter."""

    @property
    def host(self) -> PaletteHost:
        """The app, typed for the palette."""
        return cast("PaletteHost", self.app)

    def _commands(self) -> Iterator[PaletteCommand]:
        app, host = self.app, self.host
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if (
                binding.id is None
                or not active.enabled
                or not binding.description
                or binding.id.startswith("list.")
                or binding.action == "command_palette"
            ):
                continue
            name = binding.id.partition(".")[0]
            if name in {"pane", "table", "inspector", "filter"} or binding.action.endswith("leave"):
                continue
            run = partial(app.run_action, binding.action, active.node)
            help_text = (
                f"{shown_keys(binding)} · {binding.tooltip}" if binding.tooltip else shown_keys(binding)
            )
            yield PaletteCommand(binding.description, help_text, run)
        for pane in PANES:
            yield PaletteCommand(f"Go to {pane.title}", "Pane", partial(host.action_pane, pane.id))
        others = sorted(set(app.available_themes) - set(_OWN_THEMES))
        for theme in (*_OWN_THEMES, *others):
            text = "Current theme" if theme == app.theme else "Theme"
            yield PaletteCommand(
                f"Theme: {theme}", text, partial(setattr, app, "theme", theme), theme in _OWN_THEMES
            )

    async def discover(self) -> Hits:
        """Yield the entries that are listed before anything is typed."""
        for command in self._commands():
            if command.discover:
                yield DiscoveryHit(Content(command.title), command.run, command.title, command.help)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        seen = set()
        for command in self._commands():
            score = matcher.match(command.title)
            if score > 0 and command.title not in seen:
                seen.add(command.title)
                yield Hit(score, matcher.highlight(command.title), command.run, command.title, command.help)
        found = 0
        for entry in list(self.host.context.library.entries.values()):
            score = matcher.match(entry.name)
            if score > 0:
                found += 1
                run = partial(self._open_model, entry.key)
                yield Hit(score, matcher.highlight(entry.name), run, entry.name, "Model")
            if found >= _MAX_MODELS:
                break
        async for hit in self._chats(query):
            yield hit

    async def _chats(self, query: str) -> Hits:
        """Yield the chats whose title or messages match."""
        chats = self.host.context.chats
        if self._unreadable or not query.strip() or not chats.has_chats:
            return
        try:
            store = await chats.store()
            listed = await store.list_sessions(query, limit=_MAX_CHATS)
        except OpError:  # the Chat pane shows why
            self._unreadable = chats.opened is None
            return
        for item in listed:
            title = printable(item.session.title) or "New chat"
            help_text = f"Chat · {item.match.text}" if item.match else "Chat"
            run = partial(self._open_chat, item.session.id)
            yield Hit(0.5, Content(title), run, title, help_text)

    async def _open_chat(self, session_id: int) -> None:
        from mlxk_tui.ui.chat.pane import ChatPane

        self.host.action_pane("chat")
        pane = self.app.screen
        if isinstance(pane, ChatPane):
            pane.call_after_refresh(pane.sessions.open, session_id)

    async def _open_model(self, key: str) -> None:
        self.host.action_pane("models")
        pane = self.app.screen
        if isinstance(pane, ModelsPane):
            pane.call_after_refresh(pane.select, key)
