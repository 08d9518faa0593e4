"""What a parsed command line asks for; plain data, so that parsing needs neither pydantic nor the ops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Contract
    from mlxk_tui_headless.session import CommandSession


@dataclass(frozen=True)
class View:
    """What the human output shows of a result; it never changes the result."""

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
    """Runs the operation; raises OpError. None where a person has seen everything already."""
    view: View = View()
    exit_code: Callable[[Contract | None], int] = lambda data: 0
    """Exit status of a success."""


class UsageError(Exception):
    """The command line is not understood.

    Attributes:
        message: what is wrong, one sentence.
        usage: the usage line of the command, or an empty string.
        command: the command as far as it was recognised, or `cli`.
    """

    def __init__(self, message: str, *, usage: str = "", command: str = "cli") -> None:
        super().__init__(message)
        self.message = message
        self.usage = usage
        self.command = command
