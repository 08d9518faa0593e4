"""Users of the local hub: tokens and access control."""

from __future__ import annotations

from dataclasses import dataclass

from mlxk_tui.demo.hub.replies import HubError, repo_not_found
from mlxk_tui.demo.hub.store.repos import HubRepo

GOOD_TOKEN = "hf_local_good"  # noqa: S105 - valid on the local hub only
"""Token with read and write access to every namespace."""
READ_TOKEN = "hf_local_read"  # noqa: S105 - of the local hub
"""Read-only token of the same user."""
OTHER_TOKEN = "hf_local_other"  # noqa: S105 - the same
"""Token of another user without organizations and access to gated repos; it can write to its namespace."""


@dataclass(frozen=True)
class User:
    """The user of a token."""

    name: str
    write: bool = True
    orgs: tuple[str, ...] | None = ()
    """Organizations of the user; None for all."""

    def member_of(self, namespace: str) -> bool:
        """Return whether a namespace is the user's own or that of one of their organizations."""
        return self.orgs is None or namespace == self.name or namespace in self.orgs


def known_tokens() -> dict[str, User]:
    """Return the tokens of a new hub."""
    return {
        GOOD_TOKEN: User("tester", orgs=None),
        READ_TOKEN: User("tester", write=False, orgs=None),
        OTHER_TOKEN: User("visitor"),
    }


def authenticate(header: str | None, tokens: dict[str, User]) -> User | None:
    """Return the user of an Authorization header; None without a header.

    Raises:
    HubError: 401 for an unknown token, without X-Error-Code: huggingface_hub recognizes the message.
    """
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    user = tokens.get(token.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return user


def check_visible(repo: HubRepo, user: User | None) -> None:
    """Check that a user can see a repo.

    Raises:
        HubError: as for a missing repo if it is private; 403 if it is disabled.
    """
    if repo.private and (user is None or not user.member_of(repo.namespace)):
        raise repo_not_found(authenticated=user is not None)
    if repo.disabled:
        raise HubError(403, "Access to this resource is disabled.")


def check_readable(repo: HubRepo, user: User | None) -> None:
    """Check that a user can read the files of a repo; only metadata of gated repos is public.

    Raises:
        HubError: like `check_visible`; 401 or 403 GatedRepo without access to a gated repo.
    """
    check_visible(repo, user)
    if not repo.gated or (user is not None and user.name in repo.granted):
        return
    restricted = f"Access to model {repo.name} is restricted"
    if user is None:
        message = (
            f"{restricted}. You must have access to it and be authenticated to access it. Please log in."
        )
        raise HubError(401, message, "GatedRepo")
    message = f"{restricted} and you are not in the authorized list. Visit its page to ask for access."
    raise HubError(403, message, "GatedRepo")


def check_writable(namespace: str, user: User | None) -> User:
    """Check that a user can write to a namespace, and return the user.

    Raises:
        HubError: 401 without a token; 403 if the token or the user has no write access.
    """
    if user is None:
        raise HubError(401, "Invalid username or password.")
    if not user.write:
        raise HubError(403, "You must use a write token to upload to a repository.")
    if not user.member_of(namespace):
        raise HubError(403, f"You don't have the rights to change anything under the namespace {namespace}")
    return user
