"""The `run` command: one answer, or a conversation where no prompt is given."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import TYPE_CHECKING

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import size
from mlxk_tui_headless import output
from mlxk_tui_headless.chat.answer import (
    INTERRUPTED,
    ReaderGoneError,
    Screen,
    TerminalAnswer,
    answer,
    summary,
)
from mlxk_tui_headless.chat.conversation import TerminalConversation
from mlxk_tui_headless.chat.run_options import MAX_INPUT_BYTES, RunOptions, find_models, new_engine

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.inference import RunData
    from mlxk_tui_headless.session import CommandSession


def run(session: CommandSession, wanted: RunOptions) -> RunData | None:
    """Run the command; None where everything has been shown already.

    Raises:
        OpError: those of `find_runnable` and `Engine.generate`; `validation_error` without a prompt where
            one is needed; `cancelled` with what had come, after Ctrl-C.
    """
    gc.enable()  # the command starts without a collection, because most end at once
    if wanted.prompt is None:
        if session.options.json:
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                "With --json there is no conversation: give a PROMPT, or '-' to read it from stdin.",
            )
        session.status = TerminalConversation(session, wanted).run()
        return None
    prompt = _prompt(wanted.prompt)
    return session.wait(_once(session, wanted, prompt))


def _prompt(given: str) -> str:
    if given == "-":
        text = read_input(MAX_INPUT_BYTES)
    else:
        text = given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not text.strip():
        raise OpError(ErrorType.VALIDATION_ERROR, "The prompt is empty. Give a text to answer.")
    return text


def read_input(limit: int) -> str:
    """Return what stdin holds, up to `limit` bytes; bytes that are no UTF-8 become U+FFFD.

    Raises:
        OpError: `validation_error` when it holds more, or is closed.
    """
    stream = sys.stdin
    if stream is None:
        raise OpError(ErrorType.VALIDATION_ERROR, "There is no stdin to read the prompt from.")
    raw = stream.buffer.read(limit + 1) if hasattr(stream, "buffer") else stream.read().encode()
    if len(raw) > limit:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"The prompt is longer than {size(limit)}, which no model can take. Give a shorter one.",
        )
    return raw.decode("utf-8", "replace")


async def _once(session: CommandSession, wanted: RunOptions, prompt: str) -> RunData | None:
    model, draft = await find_models(session, wanted)
    streaming = wanted.stream and not session.options.json
    came = TerminalAnswer()
    screen = Screen(show_reasoning=wanted.show_reasoning) if streaming else None
    began = time.monotonic()
    engine = new_engine(wanted)
    try:
        with session.progress() as on_event:
            await engine.load(model, on_event=on_event)
        load_s = time.monotonic() - began
        await answer(engine, model, wanted.about(prompt, draft), into=came, screen=screen)
        if screen is not None:
            screen.close()
    except asyncio.CancelledError:
        if screen is not None:
            screen.close(INTERRUPTED)
        raise OpError(
            ErrorType.CANCELLED,
            "Stopped by the user. What had come is kept; the same command can be run again.",
            data=came.data(model.name, prompt, time.monotonic() - began),
        ) from None
    except OpError:
        if screen is not None:
            screen.close()  # what is said of the error begins a line of its own
        raise
    except ReaderGoneError as gone:
        session.status = gone.status
        return None
    finally:
        await engine.stop()
    data = came.data(model.name, prompt, time.monotonic() - began, load_s=load_s)
    if not streaming:
        return data
    if wanted.verbose:
        output.warn(summary(data))
    return None
