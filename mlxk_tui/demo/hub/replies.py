"""Answers of the local hub, before anything goes wrong with them, and its errors with their headers.

The client reads `X-Error-Code` and `X-Error-Message` to choose its exception (huggingface_hub 2.4,
`hf_raise_for_status`); over plain HTTP nothing else tells it what a 401 or 404 means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlxk_tui.demo.hub.blobs import BytesBlob, StoredBlob


@dataclass
class Reply:
    """Status, headers and body of an answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: StoredBlob = field(default_factory=lambda: BytesBlob(b""))
    ranges: bool = False
    """Whether a Range of the request applies to the body."""


def json_reply(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return `document` as JSON."""
    body = BytesBlob(json.dumps(document).encode())
    return Reply(status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})}, body)


class HubError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.more = more

    def reply(self) -> Reply:
        """Return it as the hub sends it: in headers and as JSON."""
        headers = {"X-Error-Message": self.message}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return json_reply({"error": self.message, **self.more}, self.status, headers)


class Redirect(Exception):  # noqa: N818 - it is an answer like any other, only from deep within
    """An answer that sends the client elsewhere."""

    def __init__(self, location: str, status: int = 307) -> None:
        super().__init__(location)
        self.location = location
        self.status = status

    def reply(self) -> Reply:
        """Return status and Location."""
        return Reply(self.status, {"Location": self.location})


def not_found(*, known: bool) -> HubError:
    """Return what a missing or hidden repo looks like to someone who is `known` by token, or not."""
    if known:
        return HubError(404, "Repository not found", "RepoNotFound")
    return HubError(401, "Invalid username or password.", "RepoNotFound")


def no_revision(revision: str) -> HubError:
    """Return the error for a revision that the repo has not."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(path: str) -> HubError:
    """Return the error for a file that the revision has not."""
    return HubError(404, f"{path} does not exist", "EntryNotFound")
