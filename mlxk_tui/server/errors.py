"""Faults as HTTP answers, in the shape of OpenAI's API."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from mlxk_tui.ops.core.errors import ERRORS, ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.retry_after import HEADER as RETRY_AFTER
from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.error_text import error_text

BUSY, NO_ROUTE, STOPPING = "server_busy", "route_not_found", "server_stopping"
"""Words of `error.type` that concern HTTP alone; every other one is a type of the JSON contract."""
_LONGEST_MESSAGE = 2000


class ApiError(Exception):
    """A request cannot be answered.

    Attributes:
        status: HTTP status.
        type: a type of the JSON contract, or one of the words above.
        message: what happened and what to do next.
        param: the field of the request that is to blame.
        headers: headers that go with it, `Retry-After` among them where the client may come back.
        overflow: figures of a prompt that is too long, where they are known.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 - OpenAI's own name
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
        overflow: ContextOverflow | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = printable(message, keep_newlines=True)[:_LONGEST_MESSAGE]
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers[RETRY_AFTER] = str(retry_after_s)
        self.overflow = overflow

    def body(self) -> dict[str, Any]:
        """Return the JSON of the answer."""
        kind = self.type
        if kind == ErrorType.CONTEXT_LENGTH_EXCEEDED.value:
            kind = "invalid_request_error"  # OpenAI's own; its clients look at this, the code and the words
        return {"error": {"message": self.in_words, "type": kind, "param": self.param, "code": self.type}}

    @property
    def in_words(self) -> str:
        """The message in the words of OpenAI's API, where clients look for them."""
        return self.message if self.overflow is None else _overflow_message(self.overflow)

    def response(self) -> web.Response:
        """Return the answer."""
        return json_response(self.body(), self.status, self.headers)


def _overflow_message(overflow: ContextOverflow) -> str:
    """Return the sentence of OpenAI's API: litellm, LangChain and others search for its words."""
    return (
        f"This model's maximum context length is {overflow.context_length} tokens. However, your prompt "
        f"resulted in {overflow.counted}. Please reduce its length."
    )


def invalid(message: str, param: str | None = None, *, status: int = 400) -> ApiError:
    """Return the error of a request that is malformed."""
    return ApiError(status, ErrorType.VALIDATION_ERROR.value, message, param=param)


def api_error(error: Exception) -> ApiError:
    """Return what a client is told about any fault; nothing of the inside of this program."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OpError):
        status = ERRORS[error.type].http_status
        message = error_text(error)
        headers, retry_after_s = {}, None
        if error.type is ErrorType.CANCELLED:  # the server stopped it: its client is still there
            status = 503
        if len(error.matches) > 1:
            message = f"{message} Matches: {', '.join(error.matches[:10])}."
        if error.type in _SAME_AGAIN:
            headers["X-Should-Retry"] = "false"  # OpenAI's and Anthropic's clients repeat any other 409, 503
        elif status == 503:
            retry_after_s = 2
        param = "model" if error.type in _ABOUT_THE_MODEL else None
        return ApiError(
            status,
            error.type.value,
            message,
            param=param,
            headers=headers,
            retry_after_s=retry_after_s,
            overflow=error.overflow,
        )
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return ApiError(503, BUSY, "Too many files are open. Try again in a moment.")
    return ApiError(
        500,
        ErrorType.INTERNAL_ERROR.value,
        f"A fault of this program ({type(error).__name__}); please report it.",
    )


_SAME_AGAIN = {ErrorType.INSUFFICIENT_MEMORY, ErrorType.AMBIGUOUS_MATCH}
"""Faults that the next seconds do not change."""
_ABOUT_THE_MODEL = {
    ErrorType.MODEL_NOT_FOUND,
    ErrorType.AMBIGUOUS_MATCH,
    ErrorType.REVISION_NOT_FOUND,
    ErrorType.MODEL_NOT_RUNNABLE,
    ErrorType.INSUFFICIENT_MEMORY,
}


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON answer, in ASCII: a lone surrogate that a client sent cannot spoil it."""
    return web.Response(
        body=json.dumps(value, separators=(",", ":")).encode("ascii"),
        status=status,
        headers=headers,
        content_type="application/json",
    )
