"""What a kept chat consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Role(str, Enum):
    """Who says something; the words of the OpenAI API."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MessageState(str, Enum):
    """How far a message is."""

    STREAMING = "streaming"
    """It is being written, by this process or another one that lives."""
    DONE = "done"
    STOPPED = "stopped"
    """The user stopped it, or its process ended."""
    FAILED = "failed"
    """The engine failed; `error` says why."""


@dataclass(frozen=True)
class Attachment:
    """A text file that goes with a message."""

    name: str
    text: str


@dataclass(frozen=True)
class Session:
    """One chat."""

    id: int
    title: str
    """Taken from the first user message until somebody gives one; empty before that."""
    model: str | None
    """Name of the model that answers next."""
    system: str
    """The system prompt; empty for none."""
    settings: Mapping[str, Any]
    """Sampling and other settings, as JSON."""
    created: float
    """Seconds since the epoch, as all times here."""
    updated: float
    head: int | None
    """The last message of the shown conversation; None while there is none."""
    pinned: bool = False


@dataclass(frozen=True)
class Message:
    """One message; with its parents up to the root it makes a conversation."""

    id: int
    session_id: int
    parent_id: int | None
    role: Role
    content: str
    created: float
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """In OpenAI's shape."""
    tool_call_id: str | None = None
    """The call that a message of the role `tool` answers."""
    attachments: tuple[Attachment, ...] = ()
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    state: MessageState = MessageState.DONE
    error: str | None = None
    sibling: int = 1
    """Which of its siblings it is, the oldest being 1."""
    siblings: int = 1
    """How many messages have the same parent, itself included: more than 1 after a regenerate or edit."""


@dataclass(frozen=True)
class SearchMatch:
    """Where a search found something in a message."""

    message_id: int
    text: str
    """Words around the match, in one line."""
    spans: tuple[tuple[int, int], ...]
    """Ranges of `text` to highlight, begin and end, in order."""


@dataclass(frozen=True)
class Listed:
    """A session in a list."""

    session: Session
    match: SearchMatch | None = None
    """The newest message that was found; None without a query or where only the title matched."""
