"""Errors as HTTP responses in the format of OpenAI's API.

See https://platform.openai.com/docs/guides/error-codes.
"""

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
"""Values of `error.type` that only the server has; all others are `ErrorType`s of the JSON contract."""
_MAX_MESSAGE_CHARS = 2000


class ApiError(Exception):
    """An error to send to the client as the response.

    Attributes:
        status: HTTP status.
        type: an `ErrorType` of the JSON contract, or one of the constants above.
        message: the cause and what to do next; control characters are removed, and it is cut at 2,000
            characters.
        param: the request field that caused the error.
        headers: response headers, including `Retry-After` if the client may try again.
        overflow: the token counts of a prompt that exceeds the model's context, if known.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 - the name in OpenAI's API
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
        self.message = printable(message, keep_newlines=True)[:_MAX_MESSAGE_CHARS]
        self.param = param
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers[RETRY_AFTER] = str(retry_after_s)
        self.overflow = overflow

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the response."""
        kind = self.type
        if kind == ErrorType.CONTEXT_LENGTH_EXCEEDED.value:
            kind = "invalid_request_error"  # OpenAI's type; clients check type, code and message
        return {
            "error": {"message": self.openai_message, "type": kind, "param": self.param, "code": self.type}
        }

    @property
    def openai_message(self) -> str:
        """The message, in the wording of OpenAI's API if clients search for it."""
        return self.message if self.overflow is None else _overflow_message(self.overflow)

    def response(self) -> web.Response:
        """Return the HTTP response in OpenAI's format."""
        return json_response(self.body(), self.status, self.headers)


def _overflow_message(overflow: ContextOverflow) -> str:
    """Return the sentence of OpenAI's API; litellm, LangChain and other clients search for it."""
    return (
        f"This model's maximum context length is {overflow.context_length} tokens. However, your prompt "
        f"resulted in {overflow.counted}. Please reduce its length."
    )


def invalid(message: str, param: str | None = None, *, status: int = 400) -> ApiError:
    """Return the error for an invalid request."""
    return ApiError(status, ErrorType.VALIDATION_ERROR.value, message, param=param)


def api_error(error: Exception) -> ApiError:
    """Return the error to send for any exception; it reveals no internals of this program."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OpError):
        status = ERRORS[error.type].http_status
        message = error_text(error)
        headers, retry_after_s = {}, None
        if error.type is ErrorType.CANCELLED:  # cancelled by the server; the client is still connected
            status = 503
        if len(error.matches) > 1:
            message = f"{message} Matches: {', '.join(error.matches[:10])}."
        if error.type in _NOT_RETRYABLE:
            headers["X-Should-Retry"] = "false"  # OpenAI's and Anthropic's clients retry any other 409, 503
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
        f"An internal error occurred ({type(error).__name__}). Please report it.",
    )


_NOT_RETRYABLE = {ErrorType.INSUFFICIENT_MEMORY, ErrorType.AMBIGUOUS_MATCH}
"""Errors that retrying within seconds does not resolve."""
_ABOUT_THE_MODEL = {
    ErrorType.MODEL_NOT_FOUND,
    ErrorType.AMBIGUOUS_MATCH,
    ErrorType.REVISION_NOT_FOUND,
    ErrorType.MODEL_NOT_RUNNABLE,
    ErrorType.INSUFFICIENT_MEMORY,
}


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON response. It is ASCII, so a lone surrogate sent by a client can't make encoding fail."""
    return web.Response(
        body=json.dumps(value, separators=(",", ":")).encode("ascii"),
        status=status,
        headers=headers,
        content_type="application/json",
    )
