"""A chat as a JSON document: the models that it is written from and checked against.

`ChatDocument.model_json_schema()` is its JSON schema. Times are ISO 8601; ids count from 1 within the
document, and a message's parent stands before it. Unknown keys are ignored, so that a later version can
add some.
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
"""A message's number within the document."""


class AttachmentDocument(BaseModel):
    """A text file that goes with a message."""

    name: str
    text: str


class MessageDocument(BaseModel):
    """One message."""

    id: Number
    parent: Number | None = Field(default=None, description="The message that this one follows.")
    role: Role
    content: str
    reasoning: str = ""
    tool_calls: list[dict[str, JsonValue]] = Field(default=[], description="In OpenAI's shape.")
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
    """A session with all its branches."""

    model_config = ConfigDict(title="mlxk-tui chat")

    format: Literal["mlxk-tui.chat"] = "mlxk-tui.chat"
    version: Literal[1] = 1
    title: str = ""
    model: str | None = None
    system: str = Field(default="", description="The system prompt.")
    settings: dict[str, JsonValue] = {}
    created: AwareDatetime
    updated: AwareDatetime
    head: Number | None = Field(default=None, description="Last message of the shown conversation.")
    messages: list[MessageDocument]

    @model_validator(mode="after")
    def _is_a_tree(self) -> ChatDocument:
        seen: set[int] = set()
        for message in self.messages:
            if message.id in seen:
                raise ValueError(f"message {message.id} is there twice")
            if message.parent is not None and message.parent not in seen:
                raise ValueError(f"the parent of message {message.id} does not stand before it")
            seen.add(message.id)
        if self.head is not None and self.head not in seen:
            raise ValueError("head names no message")
        return self


def document_of(session: Session, messages: Sequence[Message]) -> ChatDocument:
    """Return a session and all its messages as a document."""
    numbers = {message.id: number for number, message in enumerate(messages, 1)}
    return ChatDocument(
        title=session.title,
        model=session.model,
        system=session.system,
        settings=dict(session.settings),
        created=_time(session.created),
        updated=_time(session.updated),
        head=None if session.head is None else numbers[session.head],
        messages=[
            MessageDocument(
                id=numbers[one.id],
                parent=None if one.parent_id is None else numbers[one.parent_id],
                role=one.role,
                content=one.content,
                reasoning=one.reasoning,
                tool_calls=[dict(call) for call in one.tool_calls],
                tool_call_id=one.tool_call_id,
                attachments=[AttachmentDocument(name=item.name, text=item.text) for item in one.attachments],
                model=one.model,
                usage=dict(one.usage),
                timings=dict(one.timings),
                finish_reason=one.finish_reason,
                state=one.state,
                error=one.error,
                created=_time(one.created),
            )
            for one in messages
        ],
    )


def parse(data: bytes) -> tuple[Session, list[Message]]:
    """Return the session in a document, with message ids as `ChatStore.import_session` takes them.

    Raises:
        OpError: `validation_error`, saying where the document is wrong.
    """
    try:
        document = ChatDocument.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"The file is no exported chat: {printable(where)[:80]}: {printable(first['msg'])[:160]}.",
            remedy=Remedy.CHOOSE_CHAT_EXPORT,
        ) from None
    numbers = {one.id: number for number, one in enumerate(document.messages, 1)}
    messages = [
        Message(
            id=numbers[one.id],
            session_id=0,
            parent_id=None if one.parent is None else numbers[one.parent],
            role=one.role,
            content=one.content,
            created=one.created.timestamp(),
            reasoning=one.reasoning,
            tool_calls=tuple(one.tool_calls),
            tool_call_id=one.tool_call_id,
            attachments=tuple(Attachment(item.name, item.text) for item in one.attachments),
            model=one.model,
            usage=one.usage,
            timings=one.timings,
            finish_reason=one.finish_reason,
            state=one.state,
            error=one.error,
        )
        for one in document.messages
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


def _time(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, timezone.utc)
