"""The worker's side of the tokenizer processes: starting, commands, and replacing lost processes."""

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
from mlxk_tui.engine.inference.prompts.tokenizing.process import (
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
"""Maximum wall-clock time of a request, in seconds; the processes themselves limit their processor time."""
_LOAD_S = 120.0
_FORK_S = 10.0
_MEASURE_S = 5.0
"""Minimum interval of measuring memory, in seconds: the system counts all pages for it."""


class PoolUnavailableError(Exception):
    """There are no tokenizer processes, so requests have to be prepared in the worker."""


class _ProcessHandle:
    """A tokenizer process and the socket to it."""

    def __init__(self, parent: socket.socket) -> None:
        """Fork a process.

        Args:
            parent: socket of the process to fork.

        Raises:
            OSError, EOFError: the parent has ended.
        """
        local, remote = socket.socketpair()
        try:
            parent.settimeout(_FORK_S)
            frames.send(parent, Fork())
            socket.send_fds(parent, [b"."], [remote.fileno()])
            self.pid: int = frames.receive(parent)
        except BaseException:
            local.close()
            raise
        finally:
            remote.close()
        self.sock = local

    def request(self, command: object, seconds: float) -> Any:
        """Send a command and return the reply.

        Raises:
            TimeoutError: there is no reply within `seconds`.
            OSError, EOFError: the process has ended.
        """
        self.sock.settimeout(seconds)
        frames.send(self.sock, command)
        return frames.receive(self.sock)

    def kill(self) -> None:
        """Kill the process, and thereby all processes that were forked from it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.sock.close()


class TokenizerPool:
    """The tokenizer processes of a worker. It is thread-safe; each thread uses its own `PoolClient`.

    Args:
        root: the socket to the root process; None if there is none.
    """

    def __init__(self, root: socket.socket | None) -> None:
        self._root = root
        self._lock = threading.Lock()
        """Guards the root process and the fields below."""
        self._command: LoadTokenizer | None = None
        self._loaded: _ProcessHandle | None = None
        """The process that has the tokenizer and forks the working ones."""
        self._loading: threading.Lock = threading.Lock()
        """Held while the tokenizer is being loaded."""
        self._working: set[_ProcessHandle] = set()
        self._generation = 0
        """Incremented by each load and unload."""
        self.memory_bytes = 0
        """Memory of the processes without shared pages, when it was last measured."""
        self._measured_at = 0.0

    def load(self, folder: str, eos_token_ids: object, defaults: object) -> None:
        """Start loading the tokenizer of a model in a thread, after ending the processes of another model.

        Args:
            folder: the snapshot folder.
            eos_token_ids: `eos_token_id` of config.json.
            defaults: mlx-lm's tokenizer defaults for the architecture.
        """
        self.unload()
        with self._lock:
            self._command = LoadTokenizer(folder, eos_token_ids, defaults)
        threading.Thread(target=self.warm_up, name="preparing-warm", daemon=True).start()

    def unload(self) -> None:
        """End all processes except the root process."""
        with self._lock:
            self._generation += 1
            self._command = None
            self.memory_bytes, self._measured_at = 0, 0.0
            working, self._working = self._working, set()
            loaded, self._loaded = self._loaded, None
        for process in (*working, *([loaded] if loaded is not None else [])):
            process.kill()

    def warm_up(self) -> None:
        """Load the tokenizer; this may take seconds."""
        with contextlib.suppress(PoolUnavailableError):
            self._parent()

    def measure(self) -> None:
        """Update `memory_bytes`, at most every few seconds."""
        if time.monotonic() - self._measured_at < _MEASURE_S:
            return
        self._measured_at = time.monotonic()
        with self._lock:
            pids = [one.pid for one in (*self._working, *([self._loaded] if self._loaded else []))]
        total = 0
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_full_info().uss
        self.memory_bytes = total

    def _parent(self) -> tuple[_ProcessHandle, int]:
        """Return the process that has the tokenizer, loading it if necessary, and its generation.

        Raises:
            PoolUnavailableError: there is none.
        """
        with self._loading:
            with self._lock:
                command, generation, loaded = self._command, self._generation, self._loaded
                if self._root is None or command is None:
                    raise PoolUnavailableError
                if loaded is not None:
                    return loaded, generation
                try:
                    process = _ProcessHandle(self._root)
                except (OSError, EOFError):
                    self._root = None
                    raise PoolUnavailableError from None
            try:
                error = process.request(command, _LOAD_S)
            except (OSError, EOFError):
                error = "the process has ended"
            with self._lock:
                if error or self._generation != generation:
                    process.kill()
                    if self._generation == generation:
                        self._command = None  # do not retry for this model
                    raise PoolUnavailableError
                self._loaded = process
            return process, generation

    def _fork_worker(self) -> _ProcessHandle:
        for _ in range(2):
            parent, generation = self._parent()
            with self._lock:
                if generation != self._generation:
                    raise PoolUnavailableError
                try:
                    process = _ProcessHandle(parent.sock)
                except (OSError, EOFError):
                    parent.kill()
                    self._loaded = None
                    continue
                self._working.add(process)
                return process
        raise PoolUnavailableError

    def _discard(self, process: _ProcessHandle) -> None:
        with self._lock:
            self._working.discard(process)
        process.kill()


class PoolClient:
    """One thread's access to the pool. It reuses its process for all requests.

    Args:
        pool: the pool.
    """

    def __init__(self, pool: TokenizerPool) -> None:
        self._pool = pool
        self._process: _ProcessHandle | None = None

    def try_grammar(self, grammar: str, syntax: GrammarSyntax, facts: TokenizerFacts) -> None:
        """Compile a grammar in a tokenizer process, to check that it is valid and compiles in time.

        Raises:
            OpError: `validation_error`: it is invalid, or takes too long.
            PoolUnavailableError: there are no tokenizer processes.
        """
        process = self._get_process()
        try:
            failure = process.request(TryGrammar(grammar, syntax, facts), _LIMIT_S)
        except (OSError, EOFError):
            self._pool._discard(process)
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                f"The schema or grammar takes more than {GRAMMAR_S:g} seconds to compile. Optional "
                "properties cost the most.",
                remedy=Remedy.CHANGE_GRAMMAR,
            ) from None
        if isinstance(failure, TokenizingFailure):
            raise failure.error

    def _get_process(self) -> _ProcessHandle:
        process = self._process
        if process is None or process not in self._pool._working:
            process = self._process = self._pool._fork_worker()
        return process

    def prepare(self, command: Command, facts: TokenizerFacts) -> Any:
        """Prepare a request in a tokenizer process; retry once if the process ends.

        Returns:
            The result of `prepare_request`.

        Raises:
            OpError: the request cannot be prepared.
            PoolUnavailableError: there are no tokenizer processes.
        """
        for _ in range(2):
            process = self._get_process()
            try:
                result = process.request(PreparationJob(command, facts), _LIMIT_S)
            except TimeoutError:
                self._pool._discard(process)
                raise OpError(
                    ErrorType.MODEL_NOT_RUNNABLE,
                    f"The chat template or the tokenizer of {facts.name} did not finish this request within "
                    f"{_LIMIT_S:g} seconds and was stopped.",
                    remedy=Remedy.CHANGE_MESSAGES,
                ) from None
            except (OSError, EOFError):
                self._pool._discard(process)
                continue
            if isinstance(result, TokenizingFailure):
                raise result.error
            return result
        raise OpError(
            ErrorType.ENGINE_CRASHED,
            f"The tokenizer process of {facts.name} has crashed twice with this request.",
            remedy=Remedy.TRY_AGAIN,
        )
