"""The JSON format of exported chats, as pydantic models for reading and writing.

`ChatDocument.model_json_schema()` returns the JSON schema. Times are ISO 8601. Message ids start at 1 within
the document, and a parent precedes its children. Unknown keys are ignored, so that later versions can add
some.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from mlxk_tui.chats.model import Attachment, Message, MessageState, Role, Session
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable

Number = Annotated[int, Field(ge=1, le=2**24 - 1)]
"""A message's id within the document."""


class AttachmentDocument(BaseModel):
    """A text file attached to a message."""

    name: str
    text: str


class MessageDocument(BaseModel):
    """One message of the tree; a root has no parent."""

    id: Number
    parent: Number | None = Field(default=None, description="The id of the preceding message.")
    role: Role
    content: str
    reasoning: str = ""
    tool_calls: list[dict[str, JsonValue]] = Field(default=[], description="In OpenAI's format.")
    tool_call_id: str | None = None
    attachments: list[AttachmentDocument] = []
    model: str | None = None
    usage: dict[str, JsonValue] = {}
    timings: dict[str, JsonValue] = {}
    finish_reason: str | None = None
    state: MessageState = MessageState.DONE
    error: str | None = None
    created: AwareDatetime


class ChatDocument(BaseModel):
    """A chat with all its branches."""

    model_config = ConfigDict(title="mlxk-tui chat")

    format: Literal["mlxk-tui.chat"] = "mlxk-tui.chat"
    version: Literal[1] = 1
    title: str = ""
    model: str | None = None
    system: str = Field(default="", description="The system prompt.")
    settings: dict[str, JsonValue] = {}
    created: AwareDatetime
    updated: AwareDatetime
    head: Number | None = Field(default=None, description="The last message of the selected branch.")
    messages: list[MessageDocument]

    @model_validator(mode="after")
    def _check_tree(self) -> ChatDocument:
        seen: set[int] = set()
        for message in self.messages:
            if message.id in seen:
                raise ValueError(f"message {message.id} appears twice")
            if message.parent is not None and message.parent not in seen:
                raise ValueError(f"the parent of message {message.id} does not precede it")
            seen.add(message.id)
        if self.head is not None and self.head not in seen:
            raise ValueError("head is not the id of a message")
        return self


def to_document(session: Session, messages: Sequence[Message]) -> ChatDocument:
    """Convert a session and all its messages to a document."""
    numbers = {message.id: number for number, message in enumerate(messages, 1)}
    return ChatDocument(
        title=session.title,
        model=session.model,
        system=session.system,
        settings=dict(session.settings),
        created=_to_datetime(session.created),
        updated=_to_datetime(session.updated),
        head=None if session.head is None else numbers[session.head],
        messages=[
            MessageDocument(
                id=numbers[message.id],
                parent=None if message.parent_id is None else numbers[message.parent_id],
                role=message.role,
                content=message.content,
                reasoning=message.reasoning,
                tool_calls=[dict(call) for call in message.tool_calls],
                tool_call_id=message.tool_call_id,
                attachments=[
                    AttachmentDocument(name=item.name, text=item.text) for item in message.attachments
                ],
                model=message.model,
                usage=dict(message.usage),
                timings=dict(message.timings),
                finish_reason=message.finish_reason,
                state=message.state,
                error=message.error,
                created=_to_datetime(message.created),
            )
            for message in messages
        ],
    )


def parse_document(data: bytes) -> tuple[Session, list[Message]]:
    """Parse a document; message ids start at 1, as `ChatStore.import_session` expects.

    Raises:
        OpError: `validation_error`, with the location of the first error.
    """
    try:
        document = ChatDocument.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"The file is not an exported chat: {printable(where)[:80]}: {printable(first['msg'])[:160]}.",
            remedy=Remedy.CHOOSE_CHAT_EXPORT,
        ) from None
    numbers = {message.id: number for number, message in enumerate(document.messages, 1)}
    messages = [
        Message(
            id=numbers[message.id],
            session_id=0,
            parent_id=None if message.parent is None else numbers[message.parent],
            role=message.role,
            content=message.content,
            created=message.created.timestamp(),
            reasoning=message.reasoning,
            tool_calls=tuple(message.tool_calls),
            tool_call_id=message.tool_call_id,
            attachments=tuple(Attachment(item.name, item.text) for item in message.attachments),
            model=message.model,
            usage=message.usage,
            timings=message.timings,
            finish_reason=message.finish_reason,
            state=message.state,
            error=message.error,
        )
        for message in document.messages
    ]
    session = Session(
        id=0,
        title=document.title,
        model=document.model,
        system=document.system,
        settings=document.settings,
        created=document.created.timestamp(),
        updated=document.updated.timestamp(),
        head=None if document.head is None else numbers[document.head],
    )
    return session, messages


def _to_datetime(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, timezone.utc)
