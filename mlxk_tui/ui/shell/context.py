"""The services that the app passes to every pane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.services.conversation.backend import ChatBackend
from mlxk_tui.services.library import Library
from mlxk_tui.services.server.control import ServerControl
from mlxk_tui.services.tasks import Tasks
from mlxk_tui.services.updates import UpdateChecker
from mlxk_tui.settings import Settings
from mlxk_tui.transfers.queue import TransferQueue
from mlxk_tui.transfers.rate_limits import TransferRateLimits

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


@dataclass(frozen=True)
class Context:
    """Long-lived services, created once by the app."""

    library: Library
    settings: Settings
    tasks: Tasks
    transfers: TransferQueue
    rate_limits: TransferRateLimits
    hub: Callable[[], Hub]
    """Returns the hub; raises OpError if its address or token is invalid."""
    chats: ChatBackend
    """Engine and saved chats, created on first use."""
    server: ServerControl
    """Controls the server, which is created when it is first turned on."""
    updates: UpdateChecker
    """Asks the hub for updates of the cached models."""
    runtime: Runtime | None = None
    """What this machine can run; None to detect it."""
    push: bool = False
    """Whether the experimental push is enabled."""
    label: str = "hub"
    """Name of the cache in the header."""
