"""Prepares requests in separate processes, so that tokenization and chat templates do not block the streams.

If there are no such processes, requests are prepared in the worker, one at a time. A long text then delays
the first tokens of other requests, and a chat template that never ends stops the whole worker.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.engine.inference.prompts.dispatch import (
    PreparableCommand,
    PreparationResult,
    prepare_request,
    unexpected_error,
)
from mlxk_tui.engine.inference.prompts.grammar_compiler import LARGE_CHARACTERS
from mlxk_tui.engine.inference.prompts.prompt_builder import Prompt, with_constraint
from mlxk_tui.engine.inference.prompts.tokenizing.pool import PoolClient, PoolUnavailableError, TokenizerPool
from mlxk_tui.engine.inference.prompts.tokenizing.process import TokenizerFacts
from mlxk_tui.engine.protocol import Detokenize, Embed, Generate, Tokenize
from mlxk_tui.ops.core.errors import OpError

if TYPE_CHECKING:
    from mlxk_tui.engine.inference.weights.loading import LoadedModel

_CLIENTS = 3
"""Requests that are prepared concurrently; the processes share nearly all of their memory."""
_LARGE_CHARACTERS = 256 * 1024
"""Size of a large request. Only one is prepared at a time, so that large ones do not block small ones."""


@dataclass(frozen=True)
class PreparedRequest:
    """A prepared request."""

    command: PreparableCommand
    result: PreparationResult
    """The prompt, number of tokens, tokens, text, or token ids of each text; or the error."""
    arrived: float
    """When the request arrived, in seconds on the monotonic clock."""


@dataclass(frozen=True)
class _Job:
    command: PreparableCommand
    model: LoadedModel
    arrived: float
    large: bool


class Preparer:
    """Prepares a few requests concurrently, in threads that use the tokenizer processes.

    Args:
        done: called with each prepared request, in one of these threads.
        pool: the tokenizer processes.
    """

    def __init__(self, done: Callable[[PreparedRequest], None], pool: TokenizerPool) -> None:
        self._done = done
        self._pool = pool
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._large = 0
        """Number of large requests that are being prepared."""
        self._local = threading.Lock()
        """Held while a request is prepared in this process."""
        self._local_begin: float | None = None
        """When the preparation in this process began."""
        for number in range(_CLIENTS):
            threading.Thread(target=self._work, name=f"preparing-{number}", daemon=True).start()

    def put(self, command: PreparableCommand, model: LoadedModel) -> None:
        """Queue a request."""
        job = _Job(command, model, time.monotonic(), _is_large(command, _LARGE_CHARACTERS))
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    @property
    def busy_s(self) -> float:
        """Seconds since preparation of a request began in this process; 0 if none is being prepared here."""
        begin = self._local_begin
        return time.monotonic() - begin if begin is not None else 0.0

    def _work(self) -> None:
        client = PoolClient(self._pool)
        while True:
            job = self._next()
            result = self._result(client, job)
            if job.large:
                with self._changed:
                    self._large -= 1
                    self._changed.notify_all()
            self._done(PreparedRequest(job.command, result, job.arrived))
            self._pool.measure()
            del job, result  # they refer to the model, which may be unloaded while this thread waits

    def _next(self) -> _Job:
        """Wait for the oldest request that may begin."""
        with self._changed:
            while True:
                for job in self._jobs:
                    if not (job.large and self._large):
                        self._jobs.remove(job)
                        self._large += job.large
                        return job
                self._changed.wait()

    def _result(self, client: PoolClient, job: _Job) -> PreparationResult:
        try:
            result: PreparationResult = client.prepare(job.command, tokenizer_facts(job.model))
        except OpError as error:
            return error
        except PoolUnavailableError:
            with self._local:
                self._local_begin = time.monotonic()
                result = prepare_request(job.command, job.model)
                self._local_begin = None
        if not (isinstance(result, Prompt) and isinstance(job.command, Generate)):
            return result
        try:
            request = job.command.request
            known = (request.grammar_syntax, request.grammar) in job.model.grammars
            if request.grammar is not None and len(request.grammar) >= LARGE_CHARACTERS and not known:
                with contextlib.suppress(PoolUnavailableError):
                    client.try_grammar(request.grammar, request.grammar_syntax, tokenizer_facts(job.model))
            return with_constraint(job.model, job.command.request, result)
        except OpError as error:
            return error
        except Exception as error:  # noqa: BLE001 - an error must end only its own request
            return unexpected_error(error)


def tokenizer_facts(model: LoadedModel) -> TokenizerFacts:
    """Return the properties of a model that the tokenizer processes need."""
    return TokenizerFacts(
        name=model.name,
        context_length=model.context_length,
        vocab_size=model.vocab_size,
        trimmable=model.trimmable,
        defaults=model.defaults,
        stop_tokens=model.stop_tokens,
    )


def _is_large(command: PreparableCommand, limit: int) -> bool:
    """Return whether a request has more than `limit` characters of text, or a large grammar."""
    if isinstance(command, Detokenize):
        return len(command.tokens) > limit
    given: list[object]
    if isinstance(command, Embed):
        given = [command.texts]
    elif isinstance(command, Generate):
        if len(command.request.grammar or "") >= LARGE_CHARACTERS:
            return True
        given = [command.request.prompt or "", command.request.messages or (), command.request.tools]
    elif isinstance(command, Tokenize):
        given = [command.text or "", command.messages, command.tools]
    else:
        given = [command.messages, command.tools]
    total = 0
    while given and total <= limit:
        value = given.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict):
            total += sum(map(len, value))
            given += value.values()
        elif isinstance(value, (list, tuple)):
            given += value
        else:
            total += 1
    return total > limit
