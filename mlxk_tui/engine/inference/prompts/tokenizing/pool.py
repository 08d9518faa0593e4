"""The worker's side of the tokenizing processes: who is asked, what becomes of one that is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from typing import Any

import psutil

from mlxk_tui.engine.generation import GrammarSyntax
from mlxk_tui.engine.inference.prompts.tokenizing import frames
from mlxk_tui.engine.inference.prompts.tokenizing.node import (
    GRAMMAR_S,
    Fork,
    LoadTokenizer,
    PreparationJob,
    TokenizerFacts,
    TokenizingFailure,
    TryGrammar,
)
from mlxk_tui.engine.protocol import Command
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

_LIMIT_S = 120.0
"""How long a request may take by the clock, in seconds: the processes keep to less processor time."""
_LOAD_S = 120.0
_FORK_S = 10.0
_MEASURE_S = 5.0
"""How often the memory is measured at most: the system counts every page for it."""


class PoolUnavailableError(Exception):
    """There are no processes: requests are prepared in the worker."""


class _Process:
    """One process, and the socket to it."""

    def __init__(self, mother: socket.socket) -> None:
        """Have one forked.

        Raises:
            OSError, EOFError: its mother is gone.
        """
        ours, theirs = socket.socketpair()
        try:
            mother.settimeout(_FORK_S)
            frames.send(mother, Fork())
            socket.send_fds(mother, [b"."], [theirs.fileno()])
            self.pid: int = frames.receive(mother)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.sock = ours

    def ask(self, command: object, seconds: float) -> Any:
        """Return the answer to a command.

        Raises:
            TimeoutError: there is none in time.
            OSError, EOFError: it is gone.
        """
        self.sock.settimeout(seconds)
        frames.send(self.sock, command)
        return frames.receive(self.sock)

    def end(self) -> None:
        """End it at once, with all that were forked from it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.sock.close()


class Pool:
    """The processes of one worker; several threads use it, each with a process of its own.

    Args:
        first: the socket to the first process; None where there is none.
    """

    def __init__(self, first: socket.socket | None) -> None:
        self._first = first
        self._lock = threading.Lock()
        """Of the first process, and of what is below."""
        self._command: LoadTokenizer | None = None
        self._loaded: _Process | None = None
        """The one that has the tokenizer and forks those that work."""
        self._loading: threading.Lock = threading.Lock()
        self._working: set[_Process] = set()
        self._generation = 0
        self.memory_bytes = 0
        """Memory that the processes have for themselves, when it was last measured."""
        self._measured = 0.0

    def load(self, folder: str, eos_token_ids: object, defaults: object) -> None:
        """Begin to load the tokenizer of a model; whatever was there before is ended."""
        self.unload()
        with self._lock:
            self._command = LoadTokenizer(folder, eos_token_ids, defaults)
        threading.Thread(target=self.warm, name="preparing-warm", daemon=True).start()

    def unload(self) -> None:
        """End all processes but the first."""
        with self._lock:
            self._generation += 1
            self._command = None
            self.memory_bytes, self._measured = 0, 0.0
            working, self._working = self._working, set()
            loaded, self._loaded = self._loaded, None
        for process in (*working, *([loaded] if loaded is not None else [])):
            process.end()

    def warm(self) -> None:
        """Have the tokenizer loaded; this may take seconds."""
        with contextlib.suppress(PoolUnavailableError):
            self._mother()

    def measure(self) -> None:
        """Find out how much memory the processes take, every few seconds at most."""
        if time.monotonic() - self._measured < _MEASURE_S:
            return
        self._measured = time.monotonic()
        with self._lock:
            pids = [one.pid for one in (*self._working, *([self._loaded] if self._loaded else []))]
        total = 0
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_full_info().uss
        self.memory_bytes = total

    def _mother(self) -> tuple[_Process, int]:
        """Return the process that has the tokenizer, and which loading it belongs to.

        Raises:
            PoolUnavailableError: there is none.
        """
        with self._loading:
            with self._lock:
                command, generation, loaded = self._command, self._generation, self._loaded
                if self._first is None or command is None:
                    raise PoolUnavailableError
                if loaded is not None:
                    return loaded, generation
                try:
                    process = _Process(self._first)
                except (OSError, EOFError):
                    self._first = None
                    raise PoolUnavailableError from None
            try:
                failed = process.ask(command, _LOAD_S)
            except (OSError, EOFError):
                failed = "it has ended"
            with self._lock:
                if failed or self._generation != generation:
                    process.end()
                    if self._generation == generation:
                        self._command = None  # not again for this model
                    raise PoolUnavailableError
                self._loaded = process
            return process, generation

    def _new(self) -> _Process:
        for _ in range(2):
            mother, generation = self._mother()
            with self._lock:
                if generation != self._generation:
                    raise PoolUnavailableError
                try:
                    process = _Process(mother.sock)
                except (OSError, EOFError):
                    mother.end()
                    self._loaded = None
                    continue
                self._working.add(process)
                return process
        raise PoolUnavailableError

    def _lose(self, process: _Process) -> None:
        with self._lock:
            self._working.discard(process)
        process.end()


class Lane:
    """One thread's way to the pool: its process stays from one request to the next."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._process: _Process | None = None

    def try_grammar(self, grammar: str, syntax: GrammarSyntax, facts: TokenizerFacts) -> None:
        """Compile a grammar elsewhere, to see that it can be and what it costs.

        Raises:
            OpError: `validation_error`: it cannot be, or it takes too long.
            PoolUnavailableError: there are no processes.
        """
        process = self._own()
        try:
            failure = process.ask(TryGrammar(grammar, syntax, facts), _LIMIT_S)
        except (OSError, EOFError):
            self._pool._lose(process)
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                f"The schema or grammar takes more than {GRAMMAR_S:g} seconds to compile. Optional "
                "properties cost the most.",
                remedy=Remedy.CHANGE_GRAMMAR,
            ) from None
        if isinstance(failure, TokenizingFailure):
            raise failure.error

    def _own(self) -> _Process:
        process = self._process
        if process is None or process not in self._pool._working:
            process = self._process = self._pool._new()
        return process

    def prepare(self, command: Command, facts: TokenizerFacts) -> Any:
        """Return what `prompting` makes of a request; a process that is lost costs it nothing, once.

        Raises:
            OpError: why it cannot be prepared.
            PoolUnavailableError: there are no processes.
        """
        for _ in range(2):
            process = self._own()
            try:
                said = process.ask(PreparationJob(command, facts), _LIMIT_S)
            except TimeoutError:
                self._pool._lose(process)
                raise OpError(
                    ErrorType.MODEL_NOT_RUNNABLE,
                    f"The chat template or the tokenizer of {facts.name} did not come to an end with this "
                    "request and was stopped.",
                    remedy=Remedy.CHANGE_MESSAGES,
                ) from None
            except (OSError, EOFError):
                self._pool._lose(process)
                continue
            if isinstance(said, TokenizingFailure):
                raise said.error
            return said
        raise OpError(
            ErrorType.ENGINE_CRASHED,
            f"The process that reads prompts for {facts.name} has ended twice with this request.",
            remedy=Remedy.TRY_AGAIN,
        )
