"""A process of the tokenizing pool: it forks, loads a tokenizer, or prepares requests, as it is told.

The first one is forked from the worker before MLX is imported and while there is one thread. For each
model it forks one that loads the tokenizer, and that one forks those that work: all memory is shared until
it is written to, and a lost process is replaced within milliseconds. Each ends with the one it was forked
from (on Linux by `PR_SET_PDEATHSIG`), and when the other end of its socket is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import resource
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlxk_tui.engine.generation import GrammarSyntax, Sampling
from mlxk_tui.engine.inference.prompts.tokenizing import frames
from mlxk_tui.engine.inference.transformers_import import speed_up_transformers_import
from mlxk_tui.engine.protocol import Command
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy

if TYPE_CHECKING:
    from mlxk_tui.engine.inference.prompts.kinds import Preparable

_PR_SET_PDEATHSIG = 1
_TEMPLATE_S = 5.0
"""Processor time that a chat template may take, in seconds; one of 10,000 messages takes one."""
_TOKENIZER_S = 60.0
"""Processor time that a text may take, in seconds."""
GRAMMAR_S = 4.0
"""Processor time that a grammar may take, in seconds; one of 4,000 optional keys takes one."""
_MORE_MEMORY_BYTES = 4 * 2**30
"""Address space that a request may take beyond what the process has."""
_SINGLE = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Fork:
    """Command: fork a process that listens to the socket that comes along; answered by its process id."""


@dataclass(frozen=True)
class LoadTokenizer:
    """Command: load a tokenizer; answered by an empty text, or by why it cannot be."""

    folder: str
    eos_token_ids: Any
    defaults: Any
    """mlx-lm's own for the architecture."""


@dataclass(frozen=True)
class TokenizerFacts:
    """What `prompting` needs to know of a model beside its tokenizer."""

    name: str
    context_length: int | None
    vocab_size: int
    trimmable: bool
    defaults: Sampling
    stop_tokens: frozenset[int]


@dataclass(frozen=True)
class PreparationJob:
    """Command: prepare a request; answered by what `prompting` makes of it, or an `OpError`'s parts."""

    command: Command
    facts: TokenizerFacts


@dataclass(frozen=True)
class TryGrammar:
    """Command: compile a grammar; answered by None, or why it cannot be. One that takes too long ends it."""

    grammar: str
    syntax: GrammarSyntax
    facts: TokenizerFacts


@dataclass
class ReaderModel:
    """A model as far as its prompts need it."""

    tokenizer: Any
    name: str
    context_length: int | None
    vocab_size: int
    trimmable: bool
    defaults: Sampling
    stop_tokens: frozenset[int]
    grammar_tokenizer: Any = None
    grammars: dict[tuple[str, str], Any] = field(default_factory=dict)

    @classmethod
    def of(cls, tokenizer: Any, facts: TokenizerFacts) -> ReaderModel:
        """Return the model with these facts."""
        return cls(tokenizer, **{name: getattr(facts, name) for name in facts.__dataclass_fields__})


def start() -> socket.socket | None:
    """Fork the first process; to be called while there is one thread, and before MLX is imported.

    Returns:
        The worker's end of its socket; None where there can be none: requests are then prepared in the
        worker, as well as it goes.
    """
    before = {name: os.environ.get(name) for name in _SINGLE}
    os.environ |= {**_SINGLE, "TOKENIZERS_PARALLELISM": "false"}
    speed_up_transformers_import()
    try:
        # With them comes numpy, whose own threads may not be there when this process forks.
        import transformers.tokenization_utils_base  # noqa: F401 - the worker needs it too
        from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401

        import mlxk_tui.engine.inference.prompts.compiling  # noqa: F401
    except Exception:  # noqa: BLE001 - what is missing is said by the worker itself
        return None
    finally:
        for name, value in before.items():  # numpy has read them: those who come later want their own
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    if threading.active_count() > 1:
        return None
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        _run(theirs, parent, (ours,))
    theirs.close()
    return ours


def _run(sock: socket.socket, parent: int, others: tuple[socket.socket, ...]) -> None:
    """Be a process of the pool; never returns."""
    try:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        for other in others:
            other.close()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # the worker's pipes end with the worker
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that are forked here
        _Node(sock).serve()
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


class _Node:
    """What a process does."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tokenizer: Any = None
        self._worker = False

    def serve(self) -> None:
        """Do as told until the other end is gone."""
        while True:
            command, given = self._receive()
            if isinstance(command, Fork) and given is not None:
                parent = os.getpid()
                child = os.fork()
                if child == 0:
                    before, self._sock = self._sock, given
                    before.close()
                    self._after_fork(parent)
                    continue
                given.close()
                frames.send(self._sock, child)
            elif isinstance(command, LoadTokenizer):
                frames.send(self._sock, self._load(command))
            elif isinstance(command, TryGrammar):
                if not self._worker:
                    self._become_worker()
                frames.send(self._sock, self._try(command))
            elif isinstance(command, PreparationJob):
                if not self._worker:
                    self._become_worker()
                frames.send(self._sock, self._prepare(command))

    def _receive(self) -> tuple[Any, socket.socket | None]:
        """Return the next command, and the socket that came with a `Fork`."""
        command = frames.receive(self._sock)
        if not isinstance(command, Fork):
            return command, None
        _, descriptors, _, _ = socket.recv_fds(self._sock, 1, 1)
        return command, socket.socket(fileno=descriptors[0])

    def _after_fork(self, parent: int) -> None:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)

    def _become_worker(self) -> None:
        """Nothing is forked from here: threads and limits do no harm."""
        self._worker = True
        parent = os.getppid()

        def watch() -> None:  # where the system does not end it: a template may run for ever
            while os.getppid() == parent:
                time.sleep(1)
            os._exit(0)

        threading.Thread(target=watch, daemon=True).start()
        with contextlib.suppress(OSError, ValueError):
            with open("/proc/self/statm", encoding="ascii") as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + _MORE_MEMORY_BYTES, resource.RLIM_INFINITY))

    def _load(self, command: LoadTokenizer) -> str:
        try:
            load = _loader()
            more = {} if command.defaults is None else {"defaults": command.defaults}
            self._tokenizer = load(Path(command.folder), eos_token_ids=command.eos_token_ids, **more)
        except Exception as error:  # noqa: BLE001 - whatever a repo's files make of it
            return f"{type(error).__name__}: {error}"[:300] or "unknown"
        return ""

    def _try(self, command: TryGrammar) -> TokenizingFailure | None:
        from mlxk_tui.engine.inference.prompts.compiling import compile_schema  # `start` imported it

        model = ReaderModel.of(self._tokenizer, command.facts)
        # No handler: Python would not run it before the compiler returns, and nothing here is worth keeping.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, GRAMMAR_S)
        try:
            compile_schema(model, command.grammar, command.syntax)
        except OpError as error:
            return TokenizingFailure.of(error)
        except Exception:  # noqa: BLE001 - the worker meets it too, and tells
            return None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return None

    def _prepare(self, work: PreparationJob) -> Any:
        from mlxk_tui.engine.inference.prompts.kinds import prepared  # it knows this module

        model = ReaderModel.of(_Limited(self._tokenizer, work.facts.name), work.facts)
        try:
            result = prepared(cast("Preparable", work.command), model)
        except _OverrunError as error:
            result = error.told
        except MemoryError:
            result = OpError(
                ErrorType.MODEL_NOT_RUNNABLE,
                f"The chat template or tokenizer of {work.facts.name} takes more memory than it may.",
                remedy=Remedy.CHANGE_MESSAGES,
            )
        return TokenizingFailure.of(result) if isinstance(result, OpError) else result


@dataclass(frozen=True)
class TokenizingFailure:
    """An `OpError` in parts, since exceptions with keyword arguments cannot be pickled."""

    type: ErrorType
    message: str
    remedy: Remedy | None
    facts: ErrorFacts
    overflow: Any

    @classmethod
    def of(cls, error: OpError) -> TokenizingFailure:
        """Take it apart."""
        return cls(error.type, error.message, error.remedy, error.facts, error.overflow)

    @property
    def error(self) -> OpError:
        """The error."""
        return OpError(self.type, self.message, remedy=self.remedy, facts=self.facts, overflow=self.overflow)


class _OverrunError(BaseException):
    """Something takes too long; no `except Exception` on the way may take it for a fault of its own."""

    def __init__(self, told: OpError) -> None:
        super().__init__(told.message)
        self.told = told


class _Limited:
    """A tokenizer that may take so much processor time."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, *args: Any, **more: Any) -> Any:
        """As the tokenizer's own, for some seconds at most."""
        with self._limit("chat template", _TEMPLATE_S):
            return self._tokenizer.apply_chat_template(*args, **more)

    def encode(self, *args: Any, **more: Any) -> Any:
        """As the tokenizer's own, for some seconds at most."""
        with self._limit("tokenizer", _TOKENIZER_S):
            return self._tokenizer.encode(*args, **more)

    @contextlib.contextmanager
    def _limit(self, what: str, seconds: float) -> Iterator[None]:
        def overrun(*_: object) -> None:
            raise _OverrunError(
                OpError(
                    ErrorType.MODEL_NOT_RUNNABLE,
                    f"The {what} of {self._name} ran for more than {seconds:g} seconds of processor time "
                    "with this request and was stopped.",
                    remedy=Remedy.CHANGE_MESSAGES,
                )
            )

        before = signal.signal(signal.SIGPROF, overrun)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)


def _loader() -> Any:
    """Return mlx-lm's own way to load a tokenizer, without the rest of mlx-lm and so without MLX."""
    found = importlib.util.find_spec("mlx_lm")
    if found is not None and "mlx_lm" not in sys.modules:
        package = types.ModuleType("mlx_lm")
        package.__path__ = list(found.submodule_search_locations or ())
        package.__spec__ = found
        sys.modules["mlx_lm"] = package
    from mlx_lm import tokenizer_utils

    return tokenizer_utils.load
