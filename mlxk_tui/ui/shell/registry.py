"""The panes, in the order of their keys, and the screens that any pane may open by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from textual.screen import Screen

from mlxk_tui.services.library import ModelState
from mlxk_tui.transfers.jobs import TransferState as Stage
from mlxk_tui.ui.shell.context import Context


@dataclass(frozen=True)
class Badge:
    """What a pane's tab says behind its title."""

    text: str = ""
    """Empty where nothing wants attention."""
    style: str = "bad"
    """A component class of the tab strip."""


@dataclass(frozen=True)
class PaneInfo:
    """What the shell knows of a pane before it is made."""

    id: str
    """The mode's name."""
    title: str
    factory: str
    """`module:class`, imported when the pane is first opened."""
    badge: Callable[[Context], Badge] = lambda context: Badge()
    """What wants attention, or moves."""

    def make(self, context: Context) -> Screen[None]:
        """Return the pane's screen."""
        return make_screen(self.factory, context)


def make_screen(factory: str, context: Context) -> Screen[None]:
    """Return the screen of a `module:class`, which is imported now: panes open what others own by its name.

    Raises:
        TypeError: it is not a screen.
    """
    module, _, name = factory.partition(":")
    screen = getattr(import_module(module), name)(context)
    if not isinstance(screen, Screen):
        raise TypeError(f"{factory} is not a screen")
    return screen


def _unsound(context: Context) -> Badge:
    count = context.library.count(ModelState.BAD)
    return Badge(f"●{count}" if count else "")


def _moving(context: Context) -> Badge:
    running = context.transfers.running
    down = sum(not transfer.is_push for transfer in running)
    up = len(running) - down
    moving = " ".join(text for text, count in ((f"↓{down}", down), (f"↑{up}", up)) if count)
    failed = sum(transfer.state is Stage.FAILED for transfer in context.transfers.transfers)
    if moving or not failed:
        return Badge(moving, "accent")
    return Badge(f"●{failed}")


def _answering(context: Context) -> Badge:
    count = len(context.chats.answers)
    return Badge(f"●{count}" if count else "", "accent")


def _serving(context: Context) -> Badge:
    if context.server.problem is not None:
        return Badge("✗")
    count = len(context.server.live)
    return Badge(f"●{count}" if count else "", "accent")


PANES = (
    PaneInfo("models", "Models", "mlxk_tui.ui.models.pane:ModelsPane"),
    PaneInfo("health", "Health", "mlxk_tui.ui.health.pane:HealthPane", _unsound),
    PaneInfo("transfers", "Transfers", "mlxk_tui.ui.transfers.pane:TransfersPane", _moving),
    PaneInfo("chat", "Chat", "mlxk_tui.ui.chat.pane:ChatPane", _answering),
    PaneInfo("server", "Server", "mlxk_tui.ui.server.pane:ServerPane", _serving),
)
"""Every pane that works, left to right; the number keys follow."""

SEARCH = "mlxk_tui.ui.transfers.search:SearchScreen"
"""The search of the hub, for `make_screen`."""
PUSH_FORM = "mlxk_tui.ui.transfers.push_form:PushForm"
"""The push form, for `make_screen`."""
