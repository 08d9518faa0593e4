"""A conversation at the terminal: the prompt, its commands, and what Ctrl-C does where.

The engine lives in an event loop on a thread of its own, so that the main thread can wait for the user:
there a Ctrl-C ends the answer that runs, and leaves where none does.
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
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui_headless import output
from mlxk_tui_headless.chat.answer import (
    INTERRUPTED,
    ReaderGoneError,
    Screen,
    TerminalAnswer,
    answer,
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
    """Asks for a prompt, answers it, and asks again, until `exit`, `quit`, Ctrl-D or the end of stdin."""

    def __init__(self, session: CommandSession, wanted: RunOptions) -> None:
        self._session = session
        self._wanted = wanted
        self._at_terminal = output.is_terminal(sys.stdin)
        self._talk = Transcript(wanted)
        self._commands = SlashCommands(self._talk)
        self._loop = asyncio.new_event_loop()

    def run(self) -> int:
        """Have the conversation and return the exit status.

        Raises:
            OpError: the model cannot run; or, where nobody sits at the terminal, an answer failed.
        """
        thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        thread.start()
        self._session.interrupts.repeat()
        engine: Engine | None = None
        try:
            with _terminated_as_usual():
                model, draft = self._do(find_models(self._session, self._wanted))
                engine = self._do(_engine(self._wanted))
                if self._at_terminal:
                    self._welcome(engine, model)
                return self._turns(engine, model, draft)
        except (KeyboardInterrupt, EOFError):
            return 0
        except ReaderGoneError as gone:
            return gone.status
        finally:
            if engine is not None:
                self._do(engine.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(timeout=2)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it; Ctrl-C cancels it and waits for its end."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            with contextlib.suppress(concurrent.futures.CancelledError, TimeoutError, OpError):
                future.result(timeout=5)
            raise
        except concurrent.futures.CancelledError:
            raise KeyboardInterrupt from None

    def _welcome(self, engine: Engine, model: Runnable) -> None:
        """Load the model while the user looks on, and say how to leave."""
        with self._session.progress() as on_event:
            self._do(engine.load(model, on_event=on_event))
        self._put(
            f"{printable(model.name)} is ready. Ctrl-D leaves, Ctrl-C stops an answer, /help tells more.\n"
        )

    def _turns(self, engine: Engine, model: Runnable, draft: Runnable | None) -> int:
        asked = False
        with _line_editing(self._at_terminal and not self._session.options.demo):
            for text in self._prompts():
                if self._at_terminal and self._commands.take(text, self._put):
                    continue
                asked = True
                self._turn(
                    engine, model, draft, text[1:] if self._at_terminal and text.startswith("//") else text
                )
        if not asked and not self._at_terminal:
            output.warn("Nothing to answer: stdin was empty.")
        return 0

    def _turn(self, engine: Engine, model: Runnable, draft: Runnable | None, text: str) -> None:
        """Ask one thing; a Ctrl-C ends the answer, and what had come stays part of the conversation."""
        talk = self._talk
        request = talk.request(text, draft)
        came = TerminalAnswer()
        screen = Screen(show_reasoning=talk.show_reasoning)
        began = time.monotonic()
        try:
            self._do(answer(engine, model, request, into=came, screen=screen))
        except KeyboardInterrupt:
            screen.close(INTERRUPTED)
            talk.add(text, came)
        except OpError as error:
            screen.close()
            if not self._at_terminal:
                raise
            output.warn(f"Error: {error_text(error)}")
        else:
            screen.close()
            talk.add(text, came)
            if talk.verbose:
                output.warn(summary(came.data(model.name, text, time.monotonic() - began)))

    # -- reading ---------------------------------------------------------------------------------

    def _prompts(self) -> Iterator[str]:
        """Yield what the user says, one prompt at a time."""
        read = self._typed if self._at_terminal else self._piped
        while True:
            text = read(_PROMPT)
            if text is None:
                break
            while text.endswith("\\") and (more := read(_MORE)) is not None:
                text = f"{text[:-1]}\n{more}"
            if text.startswith(_BLOCK):
                text = self._block(text[len(_BLOCK) :])
            if text.strip().lower() in {"exit", "quit"}:
                return
            if text.strip():
                yield text
        if self._at_terminal:
            self._put("\n")  # Ctrl-D leaves the cursor behind the prompt

    def _block(self, first: str) -> str:
        """Return the lines up to the one that ends with three quotes."""
        read = self._typed if self._at_terminal else self._piped
        lines = [first]
        while not lines[-1].rstrip().endswith(_BLOCK) and (line := read(_MORE)) is not None:
            lines.append(line)
        return "\n".join(lines).rstrip().removesuffix(_BLOCK)

    def _typed(self, prompt: str) -> str | None:
        if not output.is_terminal(sys.stdout):  # `input` would put its prompt into the file
            output.write_error(prompt)
            prompt = ""
        try:
            text = input(prompt)
        except EOFError:
            return None
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _piped(self, prompt: str) -> str | None:
        del prompt
        stream = sys.stdin
        if stream is None:
            return None
        limit = MAX_INPUT_BYTES + 1
        if hasattr(stream, "buffer"):
            raw = stream.buffer.readline(limit)
        else:  # put in by a program that runs the command inside itself
            raw = stream.readline(limit).encode("utf-8", "replace")
        if len(raw) > MAX_INPUT_BYTES:
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                "A line of stdin is longer than any model can take. Give shorter ones.",
            )
        return raw.decode("utf-8", "replace").rstrip("\r\n") if raw else None

    def _put(self, text: str) -> None:
        if status := output.write(text):
            raise ReaderGoneError(status)


async def _engine(wanted: RunOptions) -> Engine:
    """Make the engine inside its loop."""
    return new_engine(wanted)


@contextlib.contextmanager
def _terminated_as_usual() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the program, so that the terminal is put back and the history kept."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    kept = {number: signal.getsignal(number) for number in numbers}
    for number, handler in kept.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _line_editing(wanted: bool) -> Iterator[None]:
    """Give `input` line editing and a history that lasts; a terminal without them does without."""
    try:
        import readline
    except ImportError:
        yield
        return
    if not wanted:
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
