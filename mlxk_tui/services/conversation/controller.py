"""The open chat: sending, regenerating, branches. It knows no widget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlxk_tui.chats.model import Attachment, Message, MessageState, Role, Session
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.engine.models import RunnableModel, find_runnable, with_draft
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation.answer import Answer
from mlxk_tui.services.conversation.backend import ChatBackend
from mlxk_tui.services.conversation.models import by_name, suggested
from mlxk_tui.services.conversation.request import ChatSettings, draft_of
from mlxk_tui.services.library import Library

WINDOW = 20
"""Messages that are read from the store at once."""
_UNSAVED = 0


@dataclass(frozen=True)
class PendingQuestion:
    """A question to send."""

    text: str
    attachments: tuple[Attachment, ...] = ()
    instead_of: int | None = None
    """The id of the question that it is an edit of."""


class ConversationController:
    """The open chat; a new one is stored with its first question.

    Args:
        backend: engine, store and running answers.
        library: the models of the cache.
    """

    def __init__(self, backend: ChatBackend, library: Library) -> None:
        self.backend = backend
        self.library = library
        self.session = _unsaved(None)
        self._forced: set[str] = set()

    @property
    def store(self) -> ChatStore:
        """The open store.

        Raises:
            OpError: it is not open.
        """
        if (store := self.backend.opened) is None:
            raise OpError(ErrorType.VALIDATION_ERROR, "The chats are not open yet. Try again in a moment.")
        return store

    @property
    def saved(self) -> bool:
        """Whether the chat has been stored."""
        return self.session.id != _UNSAVED

    @property
    def answer(self) -> Answer | None:
        """The answer that is being generated in this chat."""
        return self.backend.answers.get(self.session.id)

    def begin(self, model: str | None = None) -> None:
        """Open a new chat, with the model of the present one where that is still in the cache."""
        present = self.session.model if by_name(self.library, self.session.model) else None
        self.session = _unsaved(model or present or suggested(self.library))

    def choose_default_model(self) -> None:
        """Select the suggested model where none is selected."""
        if self.session.model is None and (name := suggested(self.library)):
            self.session = replace(self.session, model=name)

    async def open(self, session_id: int) -> list[Message]:
        """Open a chat and return its last messages."""
        session = await self.store.session(session_id)
        messages = await self.store.messages(session_id, limit=WINDOW)
        self.session = session
        return messages

    async def reload(self, count: int = WINDOW) -> list[Message]:
        """Return the last messages of the shown branch."""
        if not self.saved:
            return []
        self.session = await self.store.session(self.session.id)
        return await self.store.messages(self.session.id, limit=max(count, WINDOW))

    async def messages_before(self, message_id: int) -> list[Message]:
        """Return the messages above one."""
        return await self.store.messages(self.session.id, before=message_id, limit=WINDOW)

    async def runnable(self, *, force: bool = False) -> RunnableModel:
        """Return the model of the next answer; `force` allows it to be too large, from now on.

        Raises:
            OpError: why it cannot run.
        """
        name = self.session.model
        if name is None:
            raise OpError(ErrorType.MODEL_NOT_FOUND, "No model is selected.", remedy=Remedy.CHOOSE_MODEL)
        if force:
            self._forced.add(name)
        try:
            return await find_runnable(self.library.cache, name, force=name in self._forced)
        except OpError as error:
            if error.type is ErrorType.MODEL_NOT_FOUND:
                raise missing_model_error(name) from error
            raise

    async def models(self, *, force: bool = False) -> tuple[RunnableModel, RunnableModel | None]:
        """Return the model of the next answer, and its draft model where the chat has one.

        Raises:
            OpError: why they cannot run, such as too little memory for both.
        """
        model = await self.runnable(force=force)
        draft = await self.draft()
        if draft is not None:
            model = with_draft(model, draft, force=self.session.model in self._forced)
        return model, draft

    async def draft(self) -> RunnableModel | None:
        """Return the draft model; None where the chat has none.

        Raises:
            OpError: why it cannot run.
        """
        name = draft_of(self.session.settings)
        if name is None:
            return None
        try:
            return await find_runnable(self.library.cache, name, force=self.session.model in self._forced)
        except OpError as error:
            shown = printable(name)
            if error.type is ErrorType.MODEL_NOT_FOUND:
                raise OpError(
                    error.type,
                    f"{shown}, the draft model of this chat, is not in the cache any more.",
                    remedy=Remedy.CHANGE_DRAFT,
                ) from error
            message = f"{error.message} It is the draft model of this chat."
            raise OpError(error.type, message, remedy=Remedy.CHANGE_DRAFT) from error

    async def ask(
        self, question: PendingQuestion, model: RunnableModel, draft: RunnableModel | None = None
    ) -> tuple[Message, Answer]:
        """Store a question and start to answer it."""
        store = self.store
        if not self.saved:
            new = self.session
            self.session = await store.create_session(
                model=new.model, system=new.system, settings=new.settings
            )
        asked = await store.add_message(
            self.session.id,
            Role.USER,
            question.text,
            sibling_of=question.instead_of,
            attachments=question.attachments,
        )
        return asked, await self._answer(model, draft)

    async def regenerate(
        self, message: Message, model: RunnableModel, draft: RunnableModel | None = None
    ) -> Answer:
        """Start another answer: as a branch of an answer, or below a question that has none."""
        return await self._answer(model, draft, message.id if message.role is Role.ASSISTANT else None)

    async def _answer(
        self, model: RunnableModel, draft: RunnableModel | None, sibling_of: int | None = None
    ) -> Answer:
        store = self.store
        message = await store.add_message(
            self.session.id,
            Role.ASSISTANT,
            model=model.name,
            state=MessageState.STREAMING,
            sibling_of=sibling_of,
        )
        self.session = await store.session(self.session.id)
        backend = self.backend
        answer = Answer(self.session, message, model, backend.engine, store, backend.error_text, draft)
        backend.start(answer)
        return answer

    async def select_branch(self, message: Message, step: int) -> int:
        """Show the branch before (-1) or after (1) that of a message; return the id of its first message."""
        siblings = await self.store.siblings(message.id)
        index = next((i for i, one in enumerate(siblings) if one.id == message.id), 0)
        other = siblings[(index + step) % len(siblings)]
        self.session = await self.store.select_branch(other.id)
        return other.id

    async def use_model(self, name: str) -> None:
        """Use another model from now on."""
        if self.saved:
            self.session = await self.store.change_session(self.session.id, model=name)
        else:
            self.session = replace(self.session, model=name)

    async def use_settings(self, settings: ChatSettings) -> None:
        """Use other settings from now on."""
        values = dict(settings.values)
        if self.saved:
            self.session = await self.store.change_session(
                self.session.id, system=settings.system, settings=values
            )
        else:
            self.session = replace(self.session, system=settings.system, settings=values)


def questions_in(messages: Sequence[Message]) -> list[Message]:
    """Return the questions among messages, latest first."""
    return [message for message in reversed(messages) if message.role is Role.USER]


def missing_model_error(name: str) -> OpError:
    """Return the error of a chat whose model is no longer in the cache."""
    return OpError(
        ErrorType.MODEL_NOT_FOUND,
        f"{printable(name)} is not in the cache any more.",
        remedy=Remedy.REPLACE_OR_PULL_MODEL,
    )


def _unsaved(model: str | None) -> Session:
    now = time.time()
    return Session(_UNSAVED, "", model, "", {}, now, now, None)
