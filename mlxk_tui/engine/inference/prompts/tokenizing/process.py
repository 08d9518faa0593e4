"""A tokenizer process: it forks other processes, loads a tokenizer, or prepares requests, on command.

The root process is forked from the worker before MLX is imported, while there is one thread. For each model
it forks a process that loads the tokenizer, and that one forks the processes that prepare requests. They
share all memory until it is written to, and a lost process is replaced within milliseconds. Each process ends
with its parent (on Linux by `PR_SET_PDEATHSIG`), and when the other end of its socket is closed.
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

from mlxk_tui.engine.generation import GrammarSyntax, SamplingParams
from mlxk_tui.engine.inference.prompts.tokenizing import frames
from mlxk_tui.engine.inference.transformers_import import speed_up_transformers_import
from mlxk_tui.engine.protocol import Command
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy

if TYPE_CHECKING:
    from mlxk_tui.engine.inference.prompts.dispatch import PreparableCommand

_PR_SET_PDEATHSIG = 1
_TEMPLATE_S = 5.0
"""Maximum processor time for a chat template, in seconds; 10,000 messages take one second."""
_TOKENIZER_S = 60.0
"""Maximum processor time for tokenizing a text, in seconds."""
GRAMMAR_S = 4.0
"""Maximum processor time for compiling a grammar, in seconds; 4,000 optional keys take one second."""
_MORE_MEMORY_BYTES = 4 * 2**30
"""Maximum additional address space for a request."""
_SINGLE_THREAD_ENVIRON = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "RAYON_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Fork:
    """Command: fork a process that serves the socket sent with this command; the reply is its process id."""


@dataclass(frozen=True)
class LoadTokenizer:
    """Command: load a tokenizer; the reply is an empty string, or the error."""

    folder: str
    eos_token_ids: Any
    """`eos_token_id` of config.json."""
    defaults: Any
    """mlx-lm's tokenizer defaults for the architecture."""


@dataclass(frozen=True)
class TokenizerFacts:
    """The properties of a model, besides its tokenizer, that preparing a request needs."""

    name: str
    context_length: int | None
    vocab_size: int
    trimmable: bool
    defaults: SamplingParams
    stop_tokens: frozenset[int]


@dataclass(frozen=True)
class PreparationJob:
    """Command: prepare a request; the reply is the result of `prepare_request`, or a `TokenizingFailure`."""

    command: Command
    facts: TokenizerFacts


@dataclass(frozen=True)
class TryGrammar:
    """Command: compile a grammar; the reply is None or a `TokenizingFailure`.

    If it takes too long, the process ends.
    """

    grammar: str
    syntax: GrammarSyntax
    facts: TokenizerFacts


@dataclass
class TokenizerModel:
    """A model without weights, as `PromptModel` and `GrammarModel`."""

    tokenizer: Any
    name: str
    context_length: int | None
    vocab_size: int
    trimmable: bool
    defaults: SamplingParams
    stop_tokens: frozenset[int]
    grammar_tokenizer: Any = None
    grammars: dict[tuple[str, str], Any] = field(default_factory=dict)

    @classmethod
    def from_facts(cls, tokenizer: Any, facts: TokenizerFacts) -> TokenizerModel:
        """Return a model with a tokenizer and properties."""
        return cls(tokenizer, **{name: getattr(facts, name) for name in facts.__dataclass_fields__})


def start() -> socket.socket | None:
    """Fork the root process. Call this while there is one thread, and before MLX is imported.

    Returns:
        The worker's end of its socket; None if the process cannot be forked, so that requests are prepared in
        the worker.
    """
    before = {name: os.environ.get(name) for name in _SINGLE_THREAD_ENVIRON}
    os.environ |= {**_SINGLE_THREAD_ENVIRON, "TOKENIZERS_PARALLELISM": "false"}
    speed_up_transformers_import()
    try:
        # This also imports numpy, whose threads must not exist when this process forks.
        import transformers.tokenization_utils_base  # noqa: F401 - the worker needs it too
        from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: F401 - to have it in memory

        import mlxk_tui.engine.inference.prompts.grammar_compiler  # noqa: F401 - the same
    except Exception:  # noqa: BLE001 - the worker itself reports a missing package
        return None
    finally:
        for name, value in before.items():  # numpy has read the variables; restore them for other libraries
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    if threading.active_count() > 1:
        return None
    local, remote = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        _run(remote, parent, (local,))
    remote.close()
    return local


def _run(sock: socket.socket, parent: int, others: tuple[socket.socket, ...]) -> None:
    """Run a tokenizer process; never returns.

    Args:
        sock: the socket to serve.
        parent: id of the parent process.
        others: sockets to close.
    """
    try:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)
        for other in others:
            other.close()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # the worker's pipes must close when the worker ends
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # child processes are reaped automatically
        _TokenizerProcess(sock).serve()
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)


class _TokenizerProcess:
    """Executes the commands from a socket.

    Args:
        sock: the socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tokenizer: Any = None
        self._worker = False

    def serve(self) -> None:
        """Execute commands until the other end of the socket is closed."""
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
                frames.send(self._sock, self._try_grammar(command))
            elif isinstance(command, PreparationJob):
                if not self._worker:
                    self._become_worker()
                frames.send(self._sock, self._prepare(command))

    def _receive(self) -> tuple[Any, socket.socket | None]:
        """Return the next command, and the socket that was sent with a `Fork`."""
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
        """Start a thread and set limits; possible because this process never forks another one."""
        self._worker = True
        parent = os.getppid()

        def watch() -> None:  # needed without PR_SET_PDEATHSIG, as a template may run forever
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
            load = _tokenizer_loader()
            more = {} if command.defaults is None else {"defaults": command.defaults}
            self._tokenizer = load(Path(command.folder), eos_token_ids=command.eos_token_ids, **more)
        except Exception as error:  # noqa: BLE001 - the files of a repo may cause any error
            return f"{type(error).__name__}: {error}"[:300] or "unknown"
        return ""

    def _try_grammar(self, command: TryGrammar) -> TokenizingFailure | None:
        from mlxk_tui.engine.inference.prompts.grammar_compiler import compile_grammar  # `start` imported it

        model = TokenizerModel.from_facts(self._tokenizer, command.facts)
        # No handler: Python would run it only after the compiler returns. So the signal ends the process.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, GRAMMAR_S)
        try:
            compile_grammar(model, command.grammar, command.syntax)
        except OpError as error:
            return TokenizingFailure.from_error(error)
        except Exception:  # noqa: BLE001 - the worker gets the same error and reports it
            return None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return None

    def _prepare(self, work: PreparationJob) -> Any:
        from mlxk_tui.engine.inference.prompts.dispatch import prepare_request  # avoids an import cycle

        model = TokenizerModel.from_facts(_LimitedTokenizer(self._tokenizer, work.facts.name), work.facts)
        try:
            result = prepare_request(cast("PreparableCommand", work.command), model)
        except _TimeLimitError as limit:
            result = limit.error
        except MemoryError:
            result = OpError(
                ErrorType.MODEL_NOT_RUNNABLE,
                f"The chat template or tokenizer of {work.facts.name} exceeded its memory limit.",
                remedy=Remedy.CHANGE_MESSAGES,
            )
        return TokenizingFailure.from_error(result) if isinstance(result, OpError) else result


@dataclass(frozen=True)
class TokenizingFailure:
    """The fields of an `OpError`, because exceptions with keyword arguments cannot be pickled."""

    type: ErrorType
    message: str
    remedy: Remedy | None
    facts: ErrorFacts
    overflow: Any

    @classmethod
    def from_error(cls, error: OpError) -> TokenizingFailure:
        """Return the fields of an error."""
        return cls(error.type, error.message, error.remedy, error.facts, error.overflow)

    @property
    def error(self) -> OpError:
        """The `OpError` with these fields."""
        return OpError(self.type, self.message, remedy=self.remedy, facts=self.facts, overflow=self.overflow)


class _TimeLimitError(BaseException):
    """A time limit was exceeded. It is not an `Exception`, so that no template or tokenizer catches it."""

    def __init__(self, error: OpError) -> None:
        super().__init__(error.message)
        self.error = error


class _LimitedTokenizer:
    """A tokenizer whose calls have a limit of processor time.

    Args:
        tokenizer: mlx-lm's TokenizerWrapper.
        name: name of the model for error messages.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def apply_chat_template(self, *args: Any, **more: Any) -> Any:
        """Call the tokenizer's `apply_chat_template` with a limit of 5 s of processor time."""
        with self._limit("chat template", _TEMPLATE_S):
            return self._tokenizer.apply_chat_template(*args, **more)

    def encode(self, *args: Any, **more: Any) -> Any:
        """Call the tokenizer's `encode` with a limit of 60 s of processor time."""
        with self._limit("tokenizer", _TOKENIZER_S):
            return self._tokenizer.encode(*args, **more)

    @contextlib.contextmanager
    def _limit(self, what: str, seconds: float) -> Iterator[None]:
        def on_limit(*_: object) -> None:
            raise _TimeLimitError(
                OpError(
                    ErrorType.MODEL_NOT_RUNNABLE,
                    f"The {what} of {self._name} used more than {seconds:g} seconds of processor time for "
                    "this request and was stopped.",
                    remedy=Remedy.CHANGE_MESSAGES,
                )
            )

        before = signal.signal(signal.SIGPROF, on_limit)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)


def _tokenizer_loader() -> Any:
    """Return `mlx_lm.tokenizer_utils.load`, without importing the rest of mlx-lm and MLX."""
    found = importlib.util.find_spec("mlx_lm")
    if found is not None and "mlx_lm" not in sys.modules:
        package = types.ModuleType("mlx_lm")
        package.__path__ = list(found.submodule_search_locations or ())
        package.__spec__ = found
        sys.modules["mlx_lm"] = package
    from mlx_lm import tokenizer_utils

    return tokenizer_utils.load
