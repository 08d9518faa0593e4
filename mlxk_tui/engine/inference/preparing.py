"""A thread that turns requests into prompts, so that a long text or a slow template stalls no stream."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mlxk_tui.engine.inference.loading import LoadedModel
from mlxk_tui.engine.inference.prompting import (
    Prompt,
    count,
    detokenize,
    prepare,
    read_texts,
    tokenize,
)
from mlxk_tui.engine.protocol import (
    CountTokens,
    Detokenize,
    Detokenized,
    Embed,
    Generate,
    Tokenize,
    Tokenized,
)
from mlxk_tui.ops.errors import ErrorType, OpError

Preparable: TypeAlias = Generate | CountTokens | Tokenize | Detokenize | Embed
Result: TypeAlias = Prompt | int | Tokenized | Detokenized | list[list[int]] | OpError


@dataclass(frozen=True)
class Prepared:
    """A request that came out of the thread."""

    command: Preparable
    result: Result
    """The prompt, the number of tokens, tokens, a text, the tokens of each text, or why there is none."""
    arrived: float
    """When the request came, on the monotonic clock in seconds."""


class Preparer:
    """Works on one request after the other; `done` receives the results in the thread."""

    def __init__(self, done: Callable[[Prepared], None]) -> None:
        self._done = done
        self._queue: queue.SimpleQueue[tuple[Preparable, LoadedModel, float]] = queue.SimpleQueue()
        self._begun: float | None = None
        threading.Thread(target=self._work, name="preparing", daemon=True).start()

    def put(self, command: Preparable, model: LoadedModel) -> None:
        """Queue a request."""
        self._queue.put((command, model, time.monotonic()))

    @property
    def busy_s(self) -> float:
        """Seconds that the present request has been worked on; 0 without one."""
        begun = self._begun
        return time.monotonic() - begun if begun is not None else 0.0

    def _work(self) -> None:
        while True:
            command, model, arrived = self._queue.get()
            self._begun = time.monotonic()
            result = _prepared(command, model)
            self._begun = None
            self._done(Prepared(command, result, arrived))
            del command, model, result  # waiting for the next one must not keep an unloaded model in memory


def _prepared(command: Preparable, model: LoadedModel) -> Result:
    try:
        if isinstance(command, CountTokens):
            return count(model, command)
        if isinstance(command, Tokenize):
            return tokenize(model, command)
        if isinstance(command, Detokenize):
            return detokenize(model, command)
        if isinstance(command, Embed):
            return read_texts(model, command.texts)
        return prepare(model, command.request)
    except OpError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a request's fault must end nothing but the request
        return OpError(
            ErrorType.INTERNAL_ERROR,
            f"The request could not be prepared ({type(error).__name__}). Please report it.",
        )
