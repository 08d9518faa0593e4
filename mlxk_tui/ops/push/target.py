"""Where a push goes: whether repo and branch are there, may be written to, and making them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.errors import RequestContext, map_error
from mlxk_tui.ops.push.terms import MAIN, PushRequest

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


@dataclass(frozen=True)
class Target:
    """A branch of a repo as it was when it was looked at."""

    exists: bool
    """Whether the repo is there, for this account."""
    public: bool
    commit: str | None
    """Head of the branch; None where there is no such branch."""


async def look(hub: Hub, request: PushRequest) -> Target:
    """Ask what is there.

    Raises:
        OpError: `auth_error`, `access_denied`, `network_error`.
    """
    try:
        info = await hub.info(request.repo_id)
    except OpError as error:
        if error.type is not ErrorType.REPO_NOT_FOUND:
            raise
        return Target(exists=False, public=False, commit=None)
    commit: str | None = info.commit
    if request.branch != MAIN:
        try:
            commit = (await hub.info(request.repo_id, request.branch)).commit
        except OpError as error:
            if error.type is not ErrorType.REVISION_NOT_FOUND:
                raise
            commit = None
    return Target(exists=True, public=not info.private, commit=commit)


async def check_token(hub: Hub) -> str:
    """Return the token that a push needs.

    Raises:
        OpError: `auth_error` without one.
    """
    token = await hub.token()
    if token is None:
        raise OpError(ErrorType.AUTH_ERROR, "A push needs a token that may write.", remedy=Remedy.LOG_IN)
    return token


def check_target(request: PushRequest, target: Target) -> None:
    """Refuse what a push is not allowed to do, or cannot.

    Raises:
        OpError: `repo_not_found` without `create`; `validation_error` for a public repo.
    """
    name = printable(request.repo_id)
    if not target.exists and not request.create:
        raise OpError(
            ErrorType.REPO_NOT_FOUND,
            f"{name} is not on the hub, or is somebody else's private repo.",
            remedy=Remedy.CREATE_REPO,
        )
    if target.public:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{name} is public, and a push goes to private repos only: everybody could read it.",
            remedy=Remedy.MAKE_REPO_PRIVATE,
        )


async def check_may_write(hub: Hub, request: PushRequest) -> None:
    """Ask whether the token may write, before hours of upload rather than after.

    Raises:
        OpError: `upload_failed` when it may not, `auth_error` when it is no good.
    """
    try:
        await hub.check_access(request.repo_id, write=True)
    except OpError as error:
        if error.type is ErrorType.AUTH_ERROR:
            raise
        if error.type is ErrorType.ACCESS_DENIED:
            raise error.as_type(ErrorType.UPLOAD_FAILED, f"Nothing was uploaded: {error.message}") from None
        # A hub that does not know the question is no reason to stop: the upload will tell.


async def make_repo(hub: Hub, request: PushRequest) -> None:
    """Make the repo, private.

    Raises:
        OpError: `upload_failed` when the hub refuses; `auth_error`, `network_error`.
    """
    await _ask(
        hub,
        request,
        lambda api: api.create_repo(request.repo_id, private=True, exist_ok=True),
        ErrorType.UPLOAD_FAILED,
        "The repo was not made",
    )


async def make_branch(hub: Hub, request: PushRequest) -> None:
    """Make the branch, from the head of main.

    Raises:
        OpError: `branch_create_failed` when the hub refuses; `auth_error`, `network_error`.
    """
    await _ask(
        hub,
        request,
        lambda api: api.create_branch(request.repo_id, branch=request.branch, exist_ok=True),
        ErrorType.BRANCH_CREATE_FAILED,
        f"The branch {printable(request.branch)} was not made",
    )


async def _ask(
    hub: Hub, request: PushRequest, ask: Callable[[Any], object], refused: ErrorType, what: str
) -> None:
    """Ask the hub for something that it may refuse."""
    asked = RequestContext(hub.endpoint, request.repo_id, None, True, await hub.token())

    def work(api: Any, stop: object) -> None:
        try:
            ask(api)
        except Exception as error:
            known = map_error(error, asked)
            if getattr(error, "response", None) is None or known.type is ErrorType.AUTH_ERROR:
                raise
            raise known.as_type(refused, f"{what}: {known.message}") from None

    await hub.call(work, repo=request.repo_id)
