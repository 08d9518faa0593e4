"""Sends the events of a request as server-sent events, in whatever shape an API writes them."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from mlxk_tui.engine.generation import Delta, Finished, Started, TokenUsage
from mlxk_tui.server.calls import Call
from mlxk_tui.server.errors import ApiError, api_error
from mlxk_tui.server.generation import GenerationPlan
from mlxk_tui.server.http.sse import COMMENT, GoneError


class EventWriter(Protocol):
    """How an API writes its events; each method returns whole events, or nothing."""

    def started(self, index: int, event: Started) -> bytes:
        """The prompt has been accepted; what this returns goes out with the first delta."""

    def delta(self, index: int, event: Delta) -> bytes:
        """More of a choice."""

    def finished(self, index: int, event: Finished) -> bytes:
        """The end of a choice."""

    def end(self, usage: TokenUsage) -> bytes:
        """The end of the answer."""

    def failed(self, error: ApiError) -> bytes:
        """The answer broke off, and this is the last that the client hears."""


async def stream(
    call: Call, wanted: GenerationPlan, writer: EventWriter, *, keep_alive: bytes = COMMENT
) -> web.StreamResponse:
    """Answer with events as they come: one write for each delta of the engine.

    Args:
        call: the request.
        wanted: what it comes down to.
        writer: how its API writes events.
        keep_alive: what is sent in silence.

    Raises:
        Exception: what went wrong before anything was sent; later faults are told inside the stream.
        GoneError: the client does not read any more.
    """
    async with (
        call.event_stream(keep_alive) as out,
        call.service.generator.generate(wanted, call.entry) as answers,
    ):
        held = b""
        try:
            async for index, event in answers:
                if isinstance(event, Delta):
                    data = writer.delta(index, event)
                    if data:
                        await out.write(held + data)
                        held = b""
                elif isinstance(event, Finished):
                    held += writer.finished(index, event)
                elif isinstance(event, Started):
                    held += writer.started(index, event)
            await out.write(held + writer.end(answers.usage))
        except GoneError:
            raise
        except Exception as error:
            if not out.begun:
                raise
            told = api_error(error)  # a fault of this program too: nothing may follow half a stream
            call.entry.error, call.entry.error_type = told.message, told.type
            await out.write(writer.failed(told))
        await out.finish()
    return out.response
