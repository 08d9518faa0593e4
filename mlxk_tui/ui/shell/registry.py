"""The panes, in the order of their keys, and the screens that every pane can open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from textual.screen import Screen

from mlxk_tui.services.library import ModelState
from mlxk_tui.transfers.jobs import TransferState
from mlxk_tui.ui.shell.context import Context


@dataclass(frozen=True)
class Badge:
    """The count or glyph after the title of a pane's tab."""

    text: str = ""
    """Empty for no badge."""
    style: str = "bad"
    """A component class of the tab strip."""


@dataclass(frozen=True)
class PaneInfo:
    """A pane's title and badge, and how to create it."""

    id: str
    """Name of the pane's mode."""
    title: str
    factory: str
    """`module:class`, imported when the pane is opened first."""
    badge: Callable[[Context], Badge] = lambda context: Badge()

    def make(self, context: Context) -> Screen[None]:
        return make_screen(self.factory, context)


def make_screen(factory: str, context: Context) -> Screen[None]:
    """Return a new screen of a `module:class`: panes open each other's screens without importing them.

    Raises:
        TypeError: the class is not a screen.
    """
    module, _, name = factory.partition(":")
    screen = getattr(import_module(module), name)(context)
    if not isinstance(screen, Screen):
        raise TypeError(f"{factory} is not a screen")
    return screen


def _broken_models(context: Context) -> Badge:
    count = context.library.count(ModelState.BAD)
    return Badge(f"●{count}" if count else "")


def _running_transfers(context: Context) -> Badge:
    running = context.transfers.running
    down = sum(not transfer.is_push for transfer in running)
    up = len(running) - down
    running_text = " ".join(text for text, count in ((f"↓{down}", down), (f"↑{up}", up)) if count)
    failed = sum(transfer.state is TransferState.FAILED for transfer in context.transfers.transfers)
    if running_text or not failed:
        return Badge(running_text, "accent")
    return Badge(f"●{failed}")


def _running_answers(context: Context) -> Badge:
    count = len(context.chats.answers)
    return Badge(f"●{count}" if count else "", "accent")


def _live_requests(context: Context) -> Badge:
    if context.server.problem is not None:
        return Badge("✗")
    count = len(context.server.live)
    return Badge(f"●{count}" if count else "", "accent")


PANES = (
    PaneInfo("models", "Models", "mlxk_tui.ui.models.pane:ModelsPane"),
    PaneInfo("health", "Health", "mlxk_tui.ui.health.pane:HealthPane", _broken_models),
    PaneInfo("transfers", "Transfers", "mlxk_tui.ui.transfers.pane:TransfersPane", _running_transfers),
    PaneInfo("chat", "Chat", "mlxk_tui.ui.chat.pane:ChatPane", _running_answers),
    PaneInfo("server", "Server", "mlxk_tui.ui.server.pane:ServerPane", _live_requests),
)
"""All panes, left to right; their number keys follow the order."""

SEARCH = "mlxk_tui.ui.transfers.search:SearchScreen"
"""The hub search, for `make_screen`."""
PUSH_FORM = "mlxk_tui.ui.transfers.push_form:PushForm"
"""The push form, for `make_screen`."""
