"""What the app hands to every pane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.services.conversation.backend import ChatBackend
from mlxk_tui.services.library import Library
from mlxk_tui.services.server.control import ServerControl
from mlxk_tui.services.tasks import Tasks
from mlxk_tui.settings import Settings
from mlxk_tui.transfers.queue import TransferQueue

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


@dataclass(frozen=True)
class Context:
    """The long-lived things, made once by the app."""

    library: Library
    settings: Settings
    tasks: Tasks
    transfers: TransferQueue
    hub: Callable[[], Hub]
    """Returns the hub that is asked; raises OpError where its address or token cannot be used."""
    chats: ChatBackend
    """Engine and kept chats, made when they are first needed."""
    server: ServerControl
    """The server's switch; the server itself is made when it is first switched on."""
    runtime: Runtime | None = None
    """What this machine can run, where that was given; else it is looked at."""
    push: bool = False
    """Whether the experimental push may be used."""
    label: str = "hub"
    """What the cache is called in the header."""
