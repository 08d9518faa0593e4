"""Responses of the local hub before faults are applied, and its errors with their headers.

huggingface_hub (2.4, `hf_raise_for_status`) chooses its exception by `X-Error-Code` and `X-Error-Message`;
nothing else distinguishes the causes of a 401 or 404.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlxk_tui.demo.hub.blobs import BytesBlob, StoredBlob


@dataclass
class Reply:
    """Status, headers and body of a response."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: StoredBlob = field(default_factory=lambda: BytesBlob(b""))
    ranges: bool = False
    """Whether the body supports range requests."""


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a reply with a JSON body."""
    body = BytesBlob(json.dumps(document).encode())
    return Reply(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body)


class HubError(Exception):
    """An error to send to the client."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.more = more

    def reply(self) -> Reply:
        """Return the error as headers and JSON, like the Hub."""
        headers = {"X-Error-Message": self.message}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return json_reply({"error": self.message, **self.more}, self.status, headers)


class Redirect(Exception):  # noqa: N818 - not an error, but a response raised by nested functions
    """A redirect to send to the client."""

    def __init__(self, location: str, status: int = 307) -> None:
        super().__init__(location)
        self.location = location
        self.status = status

    def reply(self) -> Reply:
        """Return the redirect as a reply."""
        return Reply(self.status, {"Location": self.location})


def repo_not_found(*, authenticated: bool) -> HubError:
    """Return the error for a missing or hidden repo; it depends on whether the client has a valid token."""
    if authenticated:
        return HubError(404, "Repository not found", "RepoNotFound")
    return HubError(401, "Invalid username or password.", "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    """Return the error for a revision that doesn't exist."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str) -> HubError:
    """Return the error for a file that isn't in the revision."""
    return HubError(404, f"{path} does not exist", "EntryNotFound")
