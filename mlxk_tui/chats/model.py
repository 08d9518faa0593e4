"""Data classes of saved chats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Role(str, Enum):
    """The author of a message, with the values of OpenAI's API."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class MessageState(str, Enum):
    """The state of a message."""

    STREAMING = "streaming"
    """It is being generated, by this or another running process."""
    DONE = "done"
    STOPPED = "stopped"
    """The user stopped it, or its process exited."""
    FAILED = "failed"
    """The generation failed; `error` has the message."""


@dataclass(frozen=True)
class Attachment:
    """A text file attached to a message."""

    name: str
    text: str


@dataclass(frozen=True)
class Session:
    """One chat, without its messages."""

    id: int
    title: str
    """Given by the user, or derived from the first user message; empty before that."""
    model: str | None
    """Name of the model for the next response."""
    system: str
    """The system prompt, or empty."""
    settings: Mapping[str, Any]
    """Sampling and other settings; JSON values."""
    created: float
    """Seconds since the epoch, like all times in this module."""
    updated: float
    head: int | None
    """The last message of the selected branch; None if there are no messages."""
    pinned: bool = False


@dataclass(frozen=True)
class Message:
    """One message; a conversation consists of a message and its ancestors."""

    id: int
    session_id: int
    parent_id: int | None
    role: Role
    content: str
    created: float
    reasoning: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """In OpenAI's format."""
    tool_call_id: str | None = None
    """The id of the call to which a message with the role `tool` belongs."""
    attachments: tuple[Attachment, ...] = ()
    model: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    state: MessageState = MessageState.DONE
    error: str | None = None
    sibling: int = 1
    """Its position among its siblings; the oldest is 1."""
    siblings: int = 1
    """Number of messages with the same parent, itself included; more than 1 after regenerating or editing."""


@dataclass(frozen=True)
class SearchMatch:
    """The match of a search in a message."""

    message_id: int
    text: str
    """An excerpt around the match, on one line."""
    spans: tuple[tuple[int, int], ...]
    """Ranges of `text` to highlight: start and end, in order."""


@dataclass(frozen=True)
class SessionListItem:
    """A session in a list, with its search match."""

    session: Session
    match: SearchMatch | None = None
    """The match in the newest matching message; None without a query, or if only the title matched."""
