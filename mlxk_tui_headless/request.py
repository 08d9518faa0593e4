"""The request that a command line is parsed into; plain data, so that parsing imports no pydantic or ops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession


@dataclass(frozen=True)
class View:
    """How the human-readable output shows a result; never affects the JSON."""

    pattern: str | None = None
    show_all: bool = False
    verbose: bool = False
    health: bool = False
    files: bool = False
    quiet: bool = False
    hide_reasoning: bool = False


@dataclass(frozen=True)
class CommandRequest:
    """One command to run."""

    command: str
    execute: Callable[[CommandSession], Contract | None]
    """Runs the operation; raises OpError. Returns None if everything has been printed already."""
    view: View = View()
    exit_code: Callable[[Contract | None], int] = lambda data: 0
    """Returns the exit status of a success."""


class UsageError(Exception):
    """The command line is not valid.

    Attributes:
        message: the cause and the next step.
        usage: the usage line of the command, or an empty string.
        command: the command, or `cli` if none was recognized.
    """

    def __init__(self, message: str, *, usage: str = "", command: str = "cli") -> None:
        super().__init__(message)
        self.message = message
        self.usage = usage
        self.command = command
