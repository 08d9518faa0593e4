"""Sends generation events as server-sent events, in the format of each API."""

from __future__ import annotations

from typing import Protocol

from aiohttp import web

from mlxk_tui.engine.generation import Delta, Finished, Started, TokenUsage
from mlxk_tui.server.calls import Call
from mlxk_tui.server.errors import ApiError, api_error
from mlxk_tui.server.generation import GenerationPlan
from mlxk_tui.server.http.sse import COMMENT, ClientDisconnectedError


class EventWriter(Protocol):
    """Encodes events in the format of one API; each method returns complete events, or `b""`."""

    def started(self, index: int, event: Started) -> bytes:
        """Encode the start of a choice; it is sent with the first delta."""

    def delta(self, index: int, event: Delta) -> bytes:
        """Encode new text, reasoning or tool calls of a choice."""

    def finished(self, index: int, event: Finished) -> bytes:
        """Encode the end of a choice."""

    def end(self, usage: TokenUsage) -> bytes:
        """Encode the end of the response."""

    def failed(self, error: ApiError) -> bytes:
        """Encode an error; it is the last event of the stream."""


async def stream(
    call: Call, plan: GenerationPlan, writer: EventWriter, *, keep_alive: bytes = COMMENT
) -> web.StreamResponse:
    """Respond with a stream of events: one write for each delta of the engine.

    Args:
        call: the request.
        plan: the model and the generations to run.
        writer: encodes the events.
        keep_alive: bytes to send while no event comes.

    Raises:
        Exception: any error before the first byte was sent; later errors are sent as an event.
        ClientDisconnectedError: the client closed the connection.
    """
    async with (
        call.event_stream(keep_alive) as out,
        call.service.generator.generate(plan, call.entry) as choices,
    ):
        pending = b""
        try:
            async for index, event in choices:
                if isinstance(event, Delta):
                    data = writer.delta(index, event)
                    if data:
                        await out.write(pending + data)
                        pending = b""
                elif isinstance(event, Finished):
                    pending += writer.finished(index, event)
                elif isinstance(event, Started):
                    pending += writer.started(index, event)
            await out.write(pending + writer.end(choices.usage))
        except ClientDisconnectedError:
            raise
        except Exception as error:
            if not out.headers_sent:
                raise
            sent = api_error(error)  # internal errors too: a stream must not break off without an error event
            call.entry.error, call.entry.error_type = sent.message, sent.type
            await out.write(writer.failed(sent))
        await out.finish()
    return out.response
