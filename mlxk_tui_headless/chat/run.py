"""The `run` command: one answer, or a conversation if no prompt is given."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import TYPE_CHECKING

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import format_size
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
from mlxk_tui_headless.chat.conversation import TerminalConversation
from mlxk_tui_headless.chat.run_options import MAX_INPUT_BYTES, RunOptions, find_models, new_engine

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.inference import RunData
    from mlxk_tui_headless.session import CommandSession


def run(session: CommandSession, options: RunOptions) -> RunData | None:
    """Run the command; return None if everything has been printed already.

    Raises:
        OpError: the errors of `find_runnable` and `Engine.generate`; `validation_error` if a prompt is needed
            and missing; `cancelled` with the partial answer after Ctrl-C.
    """
    gc.enable()  # off at the start, because most commands end at once
    if options.prompt is None:
        if session.options.json:
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                "--json needs a PROMPT. Use '-' to read it from stdin.",
            )
        session.status = TerminalConversation(session, options).run()
        return None
    prompt = _prompt(options.prompt)
    return session.wait(_once(session, options, prompt))


def _prompt(given: str) -> str:
    if given == "-":
        text = read_input(MAX_INPUT_BYTES)
    else:
        text = given.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not text.strip():
        raise OpError(ErrorType.VALIDATION_ERROR, "The prompt is empty. Give a PROMPT with text.")
    return text


def read_input(limit: int) -> str:
    """Read stdin, up to `limit` bytes; bytes that are not valid UTF-8 become U+FFFD.

    Raises:
        OpError: `validation_error` if stdin is longer or closed.
    """
    stream = sys.stdin
    if stream is None:
        raise OpError(ErrorType.VALIDATION_ERROR, "The prompt cannot be read, because stdin is closed.")
    raw = stream.buffer.read(limit + 1) if hasattr(stream, "buffer") else stream.read().encode()
    if len(raw) > limit:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"The prompt is longer than {format_size(limit)}, too long for any model. Give a shorter one.",
        )
    return raw.decode("utf-8", "replace")


async def _once(session: CommandSession, options: RunOptions, prompt: str) -> RunData | None:
    model, draft = await find_models(session, options)
    streaming = options.stream and not session.options.json
    result = GenerationResult()
    printer = AnswerPrinter(show_reasoning=options.show_reasoning) if streaming else None
    start = time.monotonic()
    engine = new_engine(options)
    try:
        with session.progress() as on_event:
            await engine.load(model, on_event=on_event)
        load_s = time.monotonic() - start
        request = options.to_generation(prompt, draft)
        await generate_answer(engine, model, request, into=result, printer=printer)
        if printer is not None:
            printer.close()
    except asyncio.CancelledError:
        if printer is not None:
            printer.close(INTERRUPTED)
        raise OpError(
            ErrorType.CANCELLED,
            "Stopped by the user. You can run the same command again.",
            data=run_data(result, model.name, prompt, time.monotonic() - start),
        ) from None
    except OpError:
        if printer is not None:
            printer.close()  # so that the error starts on a new line
        raise
    except OutputClosedError as error:
        session.status = error.status
        return None
    finally:
        await engine.stop()
    data = run_data(result, model.name, prompt, time.monotonic() - start, load_s=load_s)
    if not streaming:
        return data
    if options.verbose:
        output.warn(summary(data))
    return None
