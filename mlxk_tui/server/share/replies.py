"""Responses of a share, with the headers by which huggingface_hub chooses its exceptions.

huggingface_hub (2.4, `hf_raise_for_status`) reads `X-Error-Code` and `X-Error-Message`; nothing else
distinguishes the causes of a 404.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.errors import ApiError, api_error, json_response

REPO, REVISION, ENTRY = "RepoNotFound", "RevisionNotFound", "EntryNotFound"
"""Values of `X-Error-Code`."""
INVALID_KEY = "Invalid credentials in Authorization header"
"""The hub's message; for any other, huggingface_hub reports a 401 as a missing repo."""
_MAX_MESSAGE = 500
_CODES = {ErrorType.MODEL_NOT_FOUND: REPO, ErrorType.REVISION_NOT_FOUND: REVISION}


class ShareError(Exception):
    """An error to send to the client as the response.

    Attributes:
        status: HTTP status.
        message: the cause; control characters are escaped, and it is cut at 500 characters.
        code: value of `X-Error-Code`, or None.
        headers: more response headers.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = printable(message)[:_MAX_MESSAGE]
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """Return the error as headers and JSON, like the hub."""
        ascii_message = self.message.encode("ascii", "backslashreplace").decode("ascii")
        headers = {**self.headers, "X-Error-Message": ascii_message}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return json_response({"error": self.message}, self.status, headers)


def entry_not_found(path: str) -> ShareError:
    """Return the error for a file that the snapshot does not have."""
    return ShareError(404, f"{path} is not shared in this revision.", ENTRY)


def page_not_found() -> ShareError:
    """Return the error for a path that is no route."""
    return ShareError(404, "Not found. This share serves models of a Hugging Face cache, read-only.")


def share_error(error: Exception) -> ShareError:
    """Return the error to send for any exception; it reveals no internals of this program."""
    if isinstance(error, ShareError):
        return error
    if isinstance(error, OpError) and error.type in _CODES:
        return ShareError(404, error.message, _CODES[error.type])
    known: ApiError = api_error(error)
    return ShareError(known.status, known.message, headers=known.headers)
