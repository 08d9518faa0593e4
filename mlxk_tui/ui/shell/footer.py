"""The footer: the keys that are active now, and the palette's key on the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

_MIN_WIDTH_FOR_PALETTE = 76
"""In fewer cells the palette's key would cover the others."""


@dataclass(frozen=True)
class _Key:
    """The label and the action of one key in the footer."""

    key: str
    display: str
    description: str
    action: str
    enabled: bool
    tooltip: str


class KeyFooter(Footer):
    """Textual's compact footer, which reuses its key widgets and hides the palette's key if it is narrow.

    Textual (8.2.8) mounts new keys whenever the focus moves. Each binds the footer's `compact`, so the
    footer keeps references to removed keys. Here a key widget is updated in place, or hidden.
    """

    def __init__(self) -> None:
        super().__init__(compact=True)
        self._shown: tuple[list[_Key], _Key | None] = ([], None)
        self._keys: list[FooterKey] = []
        self._palette: FooterKey | None = None

    def compose(self) -> ComposeResult:
        yield from ()  # `bindings_changed` mounts the keys

    def on_resize(self) -> None:
        self.show_command_palette = self.size.width >= _MIN_WIDTH_FOR_PALETTE
        if self._bindings_ready:
            self.bindings_changed(self.screen)

    def bindings_changed(self, screen: Screen[Any]) -> None:
        self._bindings_ready = True
        if not screen.app.app_focus or not self.is_attached or screen is not self.screen:
            return
        shown = self._active_keys(screen)
        if shown != self._shown:
            self._shown = shown
            self.call_after_refresh(self._update_keys)

    def _active_keys(self, screen: Screen[Any]) -> tuple[list[_Key], _Key | None]:
        """Return the keys of the focused widget, one per action, and the palette's key."""
        keys: dict[str, _Key] = {}
        palette = None
        for name, (_, binding, enabled, tooltip) in screen.active_bindings.items():
            if binding.show and binding.action not in keys:
                keys[binding.action] = self._describe(binding, enabled, tooltip)
            if name == self.app.COMMAND_PALETTE_BINDING and self.show_command_palette:
                palette = self._describe(binding, enabled, binding.tooltip or binding.description)
        return list(keys.values()), palette

    def _describe(self, binding: Binding, enabled: bool, tooltip: str) -> _Key:
        display = self.app.get_key_display(binding)
        return _Key(binding.key, display, binding.description, binding.action, enabled, tooltip)

    def _update_keys(self) -> None:
        """Update the key widgets; mount new ones only if there are too few."""
        if not self.is_attached or self.app._exit:
            return
        keys, palette = self._shown
        with self.app.batch_update():
            for widget, key in zip(self._keys, keys, strict=False):
                _show(widget, key)
            for widget in self._keys[len(keys) :]:
                widget.display = False
            if more := [_make_widget(key) for key in keys[len(self._keys) :]]:
                self._keys += more
                self.mount_all(more, before=self._palette)
            if self._palette is None and palette is not None:
                self._palette = _make_widget(palette, "-command-palette")
                self.mount(self._palette)
            elif self._palette is not None:
                if palette is not None:
                    _show(self._palette, palette)
                else:
                    self._palette.display = False


def _make_widget(key: _Key, classes: str = "") -> FooterKey:
    return FooterKey(
        key.key,
        key.display,
        key.description,
        key.action,
        disabled=not key.enabled,
        tooltip=key.tooltip,
        classes=classes,
    )


def _show(widget: FooterKey, key: _Key) -> None:
    before = (widget.key_display, widget.description)
    widget.key, widget.key_display = key.key, key.display
    widget.description, widget.action = key.description, key.action
    widget._disabled = not key.enabled
    widget.set_class(not key.enabled, "-disabled")
    widget.tooltip = key.tooltip or None
    widget.display = True
    if before != (key.display, key.description):
        widget.refresh(layout=True)
