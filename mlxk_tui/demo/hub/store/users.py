"""Who talks to the local hub: tokens, their users, and what these may do."""

from __future__ import annotations

from dataclasses import dataclass

from mlxk_tui.demo.hub.replies import HubError, not_found
from mlxk_tui.demo.hub.store.repos import HubRepo

GOOD_TOKEN = "hf_local_good"  # noqa: S105 - opens nothing but the local hub
"""May read and write everything, in every namespace."""
READ_TOKEN = "hf_local_read"  # noqa: S105
"""The same user, but the token may only read."""
OTHER_TOKEN = "hf_local_other"  # noqa: S105
"""Another user, who belongs to no organisation and passed no gate; may write below the own name."""


@dataclass(frozen=True)
class User:
    """The bearer of a token."""

    name: str
    write: bool = True
    orgs: tuple[str, ...] | None = ()
    """Organisations whose member the user is; None for all."""

    def member_of(self, namespace: str) -> bool:
        """Tell whether the namespace is the user's own or of an organisation of the user's."""
        return self.orgs is None or namespace == self.name or namespace in self.orgs


def known_tokens() -> dict[str, User]:
    """Return the tokens that a fresh hub knows."""
    return {
        GOOD_TOKEN: User("tester", orgs=None),
        READ_TOKEN: User("tester", write=False, orgs=None),
        OTHER_TOKEN: User("visitor"),
    }


def authenticate(header: str | None, tokens: dict[str, User]) -> User | None:
    """Return the user of an Authorization header, None without one.

    Raises:
        HubError: 401 for a token that is not known. No X-Error-Code: huggingface_hub tells it by the
            message.
    """
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    user = tokens.get(token.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    return user


def check_visible(repo: HubRepo, user: User | None) -> None:
    """Let pass who may see that the repo exists.

    Raises:
        HubError: as for a missing repo when it is private; 403 when it is disabled.
    """
    if repo.private and (user is None or not user.member_of(repo.namespace)):
        raise not_found(known=user is not None)
    if repo.disabled:
        raise HubError(403, "Access to this resource is disabled.")


def check_readable(repo: HubRepo, user: User | None) -> None:
    """Let pass who may read the files; a gated repo shows its metadata to all, but not its files.

    Raises:
        HubError: as `check_visible`; 401 or 403 GatedRepo.
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
    """Return the user when it may write in the namespace.

    Raises:
        HubError: 401 without a token; 403 when the token or the user may not.
    """
    if user is None:
        raise HubError(401, "Invalid username or password.")
    if not user.write:
        raise HubError(403, "You must use a write token to upload to a repository.")
    if not user.member_of(namespace):
        raise HubError(403, f"You don't have the rights to change anything under the namespace {namespace}")
    return user
