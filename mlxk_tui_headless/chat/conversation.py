"""A conversation at the terminal: prompt, slash commands and Ctrl-C.

The engine runs in an event loop in a separate thread, so that the main thread can wait for input. Ctrl-C
stops the running answer; at the prompt it ends the conversation.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation.generation import GenerationResult
from mlxk_tui_headless import output
from mlxk_tui_headless.chat.answer import (
    INTERRUPTED,
    AnswerPrinter,
    OutputClosedError,
    generate_answer,
    run_data,
    summary,
)
from mlxk_tui_headless.chat.run_options import MAX_INPUT_BYTES, RunOptions, find_models, new_engine
from mlxk_tui_headless.chat.slash_commands import SlashCommands, Transcript
from mlxk_tui_headless.error_text import error_text

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession

T = TypeVar("T")
_PROMPT, _MORE = ">>> ", "... "
_BLOCK = '"""'
_HISTORY_LINES = 1000


class TerminalConversation:
    """Reads prompts and answers them, until `exit`, `quit`, Ctrl-D or the end of stdin."""

    def __init__(self, session: CommandSession, options: RunOptions) -> None:
        self._session = session
        self._options = options
        self._at_terminal = output.is_terminal(sys.stdin)
        self._transcript = Transcript(options)
        self._commands = SlashCommands(self._transcript)
        self._loop = asyncio.new_event_loop()

    def run(self) -> int:
        """Have the conversation and return the exit status.

        Raises:
            OpError: the model cannot run; or, without a terminal, an answer failed.
        """
        thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        thread.start()
        self._session.interrupts.keep_raising()
        engine: Engine | None = None
        try:
            with _exit_on_termination():
                model, draft = self._run_in_loop(find_models(self._session, self._options))
                engine = self._run_in_loop(_make_engine(self._options))
                if self._at_terminal:
                    self._load_and_greet(engine, model)
                return self._turns(engine, model, draft)
        except (KeyboardInterrupt, EOFError):
            return 0
        except OutputClosedError as error:
            return error.status
        finally:
            if engine is not None:
                self._run_in_loop(engine.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(timeout=2)

    def _run_in_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it; Ctrl-C cancels it and waits until it has ended."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            with contextlib.suppress(concurrent.futures.CancelledError, TimeoutError, OpError):
                future.result(timeout=5)
            raise
        except concurrent.futures.CancelledError:
            raise KeyboardInterrupt from None

    def _load_and_greet(self, engine: Engine, model: RunnableModel) -> None:
        """Load the model with a progress bar, then print how to leave."""
        with self._session.progress() as on_event:
            self._run_in_loop(engine.load(model, on_event=on_event))
        self._write(
            f"{printable(model.name)} is ready. Ctrl-C stops an answer, Ctrl-D quits, /help shows commands.\n"
        )

    def _turns(self, engine: Engine, model: RunnableModel, draft: RunnableModel | None) -> int:
        asked = False
        with _line_editing(self._at_terminal and not self._session.options.demo):
            for text in self._prompts():
                if self._at_terminal and self._commands.run(text, self._write):
                    continue
                asked = True
                self._turn(
                    engine, model, draft, text[1:] if self._at_terminal and text.startswith("//") else text
                )
        if not asked and not self._at_terminal:
            output.warn("No prompt: stdin was empty.")
        return 0

    def _turn(self, engine: Engine, model: RunnableModel, draft: RunnableModel | None, text: str) -> None:
        """Answer one prompt; Ctrl-C stops the answer, and its text so far stays in the conversation."""
        transcript = self._transcript
        request = transcript.request(text, draft)
        result = GenerationResult()
        printer = AnswerPrinter(show_reasoning=transcript.show_reasoning)
        start = time.monotonic()
        try:
            self._run_in_loop(generate_answer(engine, model, request, into=result, printer=printer))
        except KeyboardInterrupt:
            printer.close(INTERRUPTED)
            transcript.add(text, result)
        except OpError as error:
            printer.close()
            if not self._at_terminal:
                raise
            output.warn(f"Error: {error_text(error)}")
        else:
            printer.close()
            transcript.add(text, result)
            if transcript.verbose:
                output.warn(summary(run_data(result, model.name, text, time.monotonic() - start)))

    # -- reading ---------------------------------------------------------------------------------

    def _prompts(self) -> Iterator[str]:
        """Yield the prompts of the user."""
        read = self._read_terminal if self._at_terminal else self._read_pipe
        while True:
            text = read(_PROMPT)
            if text is None:
                break
            while text.endswith("\\") and (more := read(_MORE)) is not None:
                text = f"{text[:-1]}\n{more}"
            if text.startswith(_BLOCK):
                text = self._read_block(text[len(_BLOCK) :])
            if text.strip().lower() in {"exit", "quit"}:
                return
            if text.strip():
                yield text
        if self._at_terminal:
            self._write("\n")  # after Ctrl-D the cursor is still behind the prompt

    def _read_block(self, first: str) -> str:
        """Return the lines up to one that ends with three quotes."""
        read = self._read_terminal if self._at_terminal else self._read_pipe
        lines = [first]
        while not lines[-1].rstrip().endswith(_BLOCK) and (line := read(_MORE)) is not None:
            lines.append(line)
        return "\n".join(lines).rstrip().removesuffix(_BLOCK)

    def _read_terminal(self, prompt: str) -> str | None:
        if not output.is_terminal(sys.stdout):  # `input` would write its prompt to the file
            output.write_error(prompt)
            prompt = ""
        try:
            text = input(prompt)
        except EOFError:
            return None
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _read_pipe(self, prompt: str) -> str | None:
        del prompt
        stream = sys.stdin
        if stream is None:
            return None
        limit = MAX_INPUT_BYTES + 1
        if hasattr(stream, "buffer"):
            raw = stream.buffer.readline(limit)
        else:  # replaced by a program that runs the command in-process
            raw = stream.readline(limit).encode("utf-8", "replace")
        if len(raw) > MAX_INPUT_BYTES:
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                "A line of stdin is too long for any model. Use shorter lines.",
            )
        return raw.decode("utf-8", "replace").rstrip("\r\n") if raw else None

    def _write(self, text: str) -> None:
        if status := output.write(text):
            raise OutputClosedError(status)


async def _make_engine(options: RunOptions) -> Engine:
    """Create the engine inside its event loop."""
    return new_engine(options)


@contextlib.contextmanager
def _exit_on_termination() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise SystemExit, so that the terminal is restored and the history saved."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _line_editing(enabled: bool) -> Iterator[None]:
    """Give `input` line editing and a saved history, if readline is available."""
    try:
        import readline
    except ImportError:
        yield
        return
    if not enabled:
        yield
        return
    path = _history_file()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(path)


def _history_file() -> Path:
    import platformdirs

    return platformdirs.user_state_path("mlxk-tui") / "run_history"
