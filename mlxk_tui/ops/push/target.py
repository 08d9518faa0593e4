"""The target of a push: checks the repo and the branch, and creates them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.errors import RequestContext, map_error
from mlxk_tui.ops.push.request import MAIN, PushRequest

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


@dataclass(frozen=True)
class PushTarget:
    """State of a repo and a branch on the hub."""

    exists: bool
    """Whether the repo exists for this account."""
    public: bool
    commit: str | None
    """Head of the branch; None if the branch does not exist."""


async def get_target(hub: Hub, request: PushRequest) -> PushTarget:
    """Return the state of the requested repo and branch.

    Raises:
        OpError: `auth_error`, `access_denied`, `network_error`.
    """
    try:
        info = await hub.info(request.repo_id)
    except OpError as error:
        if error.type is not ErrorType.REPO_NOT_FOUND:
            raise
        return PushTarget(exists=False, public=False, commit=None)
    commit: str | None = info.commit
    if request.branch != MAIN:
        try:
            commit = (await hub.info(request.repo_id, request.branch)).commit
        except OpError as error:
            if error.type is not ErrorType.REVISION_NOT_FOUND:
                raise
            commit = None
    return PushTarget(exists=True, public=not info.private, commit=commit)


async def check_token(hub: Hub) -> str:
    """Return the token for a push.

    Raises:
        OpError: `auth_error` if there is none.
    """
    token = await hub.token()
    if token is None:
        raise OpError(
            ErrorType.AUTH_ERROR, "A push requires a token with write access.", remedy=Remedy.LOG_IN
        )
    return token


def check_target(request: PushRequest, target: PushTarget) -> None:
    """Check that the target exists, or may be created, and is not public.

    Raises:
        OpError: `repo_not_found` without `create`; `validation_error` for a public repo.
    """
    name = printable(request.repo_id)
    if not target.exists and not request.create:
        raise OpError(
            ErrorType.REPO_NOT_FOUND,
            f"{name} is not on the hub, or is a private repo of another account.",
            remedy=Remedy.CREATE_REPO,
        )
    if target.public:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{name} is public, and a push is allowed to private repos only.",
            remedy=Remedy.MAKE_REPO_PRIVATE,
        )


async def check_write_access(hub: Hub, request: PushRequest) -> None:
    """Check write access before the upload, which may take hours.

    Raises:
        OpError: `upload_failed` without write access, `auth_error` if the token is invalid.
    """
    try:
        await hub.check_access(request.repo_id, write=True)
    except OpError as error:
        if error.type is ErrorType.AUTH_ERROR:
            raise
        if error.type is ErrorType.ACCESS_DENIED:
            raise error.as_type(ErrorType.UPLOAD_FAILED, f"Nothing was uploaded: {error.message}") from None
        # A hub without this request does not prevent the upload, which fails later if access is missing.


async def create_repo(hub: Hub, request: PushRequest) -> None:
    """Create the repo as a private one.

    Raises:
        OpError: `upload_failed` if the hub refuses; `auth_error`, `network_error`.
    """
    await _call_hub(
        hub,
        request,
        lambda api: api.create_repo(request.repo_id, private=True, exist_ok=True),
        ErrorType.UPLOAD_FAILED,
        "The repo was not created",
    )


async def create_branch(hub: Hub, request: PushRequest) -> None:
    """Create the branch at the head of main.

    Raises:
        OpError: `branch_create_failed` if the hub refuses; `auth_error`, `network_error`.
    """
    await _call_hub(
        hub,
        request,
        lambda api: api.create_branch(request.repo_id, branch=request.branch, exist_ok=True),
        ErrorType.BRANCH_CREATE_FAILED,
        f"The branch {printable(request.branch)} was not created",
    )


async def _call_hub(
    hub: Hub, request: PushRequest, call: Callable[[Any], object], refused: ErrorType, failure: str
) -> None:
    """Call the hub; report a refusal as `refused`, with `failure` as the start of the message."""
    context = RequestContext(hub.endpoint, request.repo_id, None, True, await hub.token())

    def work(api: Any, stop: object) -> None:
        try:
            call(api)
        except Exception as error:
            known = map_error(error, context)
            if getattr(error, "response", None) is None or known.type is ErrorType.AUTH_ERROR:
                raise
            raise known.as_type(refused, f"{failure}: {known.message}") from None

    await hub.call(work, repo=request.repo_id)
