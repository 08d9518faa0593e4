"""Threads that have requests turned into prompts, in processes of their own, so that nothing stalls a stream.

Where there can be no such processes one thread does the work itself, as well as it goes: a text that takes
long then delays others' first tokens, and a chat template without an end costs the whole worker.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.engine.inference.prompts.compiling import LARGE_CHARACTERS
from mlxk_tui.engine.inference.prompts.kinds import Preparable, Result, preparation_fault, prepared
from mlxk_tui.engine.inference.prompts.prompting import Prompt, constrained
from mlxk_tui.engine.inference.prompts.tokenizing.node import TokenizerFacts
from mlxk_tui.engine.inference.prompts.tokenizing.pool import Lane, Pool, PoolUnavailableError
from mlxk_tui.engine.protocol import Detokenize, Embed, Generate, Tokenize
from mlxk_tui.ops.core.errors import OpError

if TYPE_CHECKING:
    from mlxk_tui.engine.inference.weights.loading import LoadedModel

_LANES = 3
"""Requests that are prepared at once; the processes share nearly all of their memory."""
_LARGE_CHARACTERS = 256 * 1024
"""Text from which on a request waits for others of its kind: never may they take all lanes."""


@dataclass(frozen=True)
class Prepared:
    """A request that came out of preparation."""

    command: Preparable
    result: Result
    """The prompt, the number of tokens, tokens, a text, the tokens of each text, or why there is none."""
    arrived: float
    """When the request came, on the monotonic clock in seconds."""


@dataclass(frozen=True)
class _Job:
    command: Preparable
    model: LoadedModel
    arrived: float
    large: bool


class Preparer:
    """Works on a few requests at once; `done` receives the results, in one of its threads.

    Args:
        done: called with each request that came out.
        pool: the processes.
    """

    def __init__(self, done: Callable[[Prepared], None], pool: Pool) -> None:
        self._done = done
        self._pool = pool
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._large = 0
        self._here = threading.Lock()
        """Held while a request is prepared in this process."""
        self._begun: float | None = None
        for number in range(_LANES):
            threading.Thread(target=self._work, name=f"preparing-{number}", daemon=True).start()

    def put(self, command: Preparable, model: LoadedModel) -> None:
        """Queue a request."""
        job = _Job(command, model, time.monotonic(), _characters(command, _LARGE_CHARACTERS))
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()

    @property
    def busy_s(self) -> float:
        """Seconds that a request has been worked on in this process; 0 without one."""
        begun = self._begun
        return time.monotonic() - begun if begun is not None else 0.0

    def _work(self) -> None:
        lane = Lane(self._pool)
        while True:
            job = self._next()
            result = self._result(lane, job)
            if job.large:
                with self._changed:
                    self._large -= 1
                    self._changed.notify_all()
            self._done(Prepared(job.command, result, job.arrived))
            self._pool.measure()
            del job, result  # waiting for the next one must not keep an unloaded model in memory

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

    def _result(self, lane: Lane, job: _Job) -> Result:
        try:
            result: Result = lane.prepare(job.command, facts_of(job.model))
        except OpError as error:
            return error
        except PoolUnavailableError:
            with self._here:
                self._begun = time.monotonic()
                result = prepared(job.command, job.model)
                self._begun = None
        if not (isinstance(result, Prompt) and isinstance(job.command, Generate)):
            return result
        try:
            request = job.command.request
            known = (request.grammar_syntax, request.grammar) in job.model.grammars
            if request.grammar is not None and len(request.grammar) >= LARGE_CHARACTERS and not known:
                with contextlib.suppress(PoolUnavailableError):
                    lane.try_grammar(request.grammar, request.grammar_syntax, facts_of(job.model))
            return constrained(job.model, job.command.request, result)
        except OpError as error:
            return error
        except Exception as error:  # noqa: BLE001 - as below
            return preparation_fault(error)


def facts_of(model: LoadedModel) -> TokenizerFacts:
    """Return what the processes need to know of a model."""
    return TokenizerFacts(
        name=model.name,
        context_length=model.context_length,
        vocab_size=model.vocab_size,
        trimmable=model.trimmable,
        defaults=model.defaults,
        stop_tokens=model.stop_tokens,
    )


def _characters(command: Preparable, bound: int) -> bool:
    """Tell whether a request has more text than `bound` characters; counts no further."""
    if isinstance(command, Detokenize):
        return len(command.tokens) > bound
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
    while given and total <= bound:
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
    return total > bound
