"""Routing: finds the handler of a request by its path."""

from __future__ import annotations

from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.handlers import control, models, resolve, search, uploads, xet
from mlxk_tui.demo.hub.replies import HubError, Reply, json_reply, repo_not_found
from mlxk_tui.demo.hub.store.repos import HubRepo
from mlxk_tui.demo.hub.store.users import authenticate

_MODEL_ROUTES = {
    "auth-check", "branch", "commit", "commits", "paths-info", "preupload", "refs", "revision", "settings",
    "tag", "tree", "xet-read-token", "xet-write-token",
}  # fmt: skip


async def route_hub(context: HandlerContext) -> Reply:
    """Handle a request to the hub origin."""
    if context.segments[0] == "-":
        return await control.handle(context)
    context.user = authenticate(context.request.headers.get("Authorization"), context.state.tokens)
    match context.segments:
        case ["api", "models"]:
            return await search.search(context)
        case ["api", "models", *rest]:
            return await _model(context, rest)
        case ["api", *rest]:
            return await _api(context, rest)
        case [space, git, "info", "lfs", *parts] if git.endswith(".git"):
            return await uploads.lfs(context, f"{space}/{git.removesuffix('.git')}", parts)
        case [space, name, ("resolve" | "raw"), revision, *parts]:
            return await resolve.resolve(context, context.repo(f"{space}/{name}"), revision, "/".join(parts))
        case [name, ("resolve" | "raw"), revision, *parts]:
            return await resolve.resolve(context, context.repo(name), revision, "/".join(parts))
    raise _page_not_found()


async def route_cdn(context: HandlerContext) -> Reply:
    """Handle a request to the CDN origin."""
    if context.request.method == "PUT":
        return await uploads.put(context)
    if context.request.method == "POST" and context.segments[0] == "complete":
        return await uploads.complete(context)
    if context.request.method in {"GET", "HEAD"}:
        return await resolve.cdn_file(context)
    raise HubError(405, "Method not allowed")


async def _api(context: HandlerContext, rest: list[str]) -> Reply:
    """Handle requests below `/api`, except those for models."""
    match context.request.method, rest:
        case "GET", ["whoami-v2"]:
            return _whoami(context)
        case "GET", ["agent-harnesses"]:
            return json_reply({"harnesses": []})
        case "POST", ["validate-yaml"]:
            return await uploads.validate_yaml(context)
        case "POST", ["repos", "create"]:
            return await uploads.create_repo(context)
        case "DELETE", ["repos", "delete"]:
            return await uploads.delete_repo(context)
        case _, ["resolve-cache", "models", space, name, revision, *parts]:
            repo = context.repo(f"{space}/{name}")
            return await resolve.resolve_cached(context, repo, revision, "/".join(parts))
        case _, ["datasets" | "spaces", *_]:
            raise repo_not_found(authenticated=context.user is not None)
    raise _page_not_found()


async def _model(context: HandlerContext, rest: list[str]) -> Reply:
    """Handle `/api/models/{id}/...`; an id has one or two segments."""
    parts = 1 if len(rest) == 1 or rest[1] in _MODEL_ROUTES else 2
    repo = context.repo("/".join(rest[:parts]))
    if context.request.method in {"GET", "HEAD"}:
        return await _read(context, repo, rest[parts:])
    match context.request.method, rest[parts:]:
        case "POST", ["paths-info", revision]:
            return await models.paths_info(context, repo, revision)
        case "POST", ["branch", branch]:
            return await uploads.create_branch(context, repo, branch)
        case "DELETE", ["branch", branch]:
            return await uploads.delete_branch(context, repo, branch)
        case "POST", ["tag", revision]:
            return await uploads.create_tag(context, repo, revision)
        case "POST", ["preupload", revision]:
            return await uploads.preupload(context, repo, revision)
        case "POST", ["commit", revision]:
            return await uploads.commit(context, repo, revision)
        case "PUT", ["settings"]:
            return await uploads.settings(context, repo)
    raise _page_not_found()


async def _read(context: HandlerContext, repo: HubRepo, rest: list[str]) -> Reply:
    match rest:
        case []:
            return await models.info(context, repo)
        case ["revision", revision]:
            return await models.info(context, repo, revision)
        case ["auth-check", *write]:
            return await models.auth_check(context, repo, write == ["write"])
        case ["refs"]:
            return await models.refs(context, repo)
        case ["commits", revision]:
            return await models.commits(context, repo, revision)
        case ["tree", revision, *path]:
            return await models.tree(context, repo, revision, "/".join(path))
        case ["xet-read-token" | "xet-write-token" as kind, _]:
            return await xet.token(context, repo, write=kind == "xet-write-token")
    raise _page_not_found()


def _page_not_found() -> HubError:
    return HubError(404, "Sorry, we can't find the page you are looking for.")


def _whoami(context: HandlerContext) -> Reply:
    """Handle `HfApi.whoami`."""
    user = context.user
    if user is None:
        raise HubError(401, "Invalid username or password.")
    token = {"displayName": "local", "role": "write" if user.write else "read"}
    return json_reply(
        {
            "type": "user",
            "id": "0" * 24,
            "name": user.name,
            "fullname": user.name.title(),
            "isPro": False,
            "orgs": [{"type": "org", "name": name} for name in user.orgs or ()],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )
