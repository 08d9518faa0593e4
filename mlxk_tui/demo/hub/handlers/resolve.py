"""File downloads: `resolve` on the hub, and the CDN origin to which large files are redirected."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from mlxk_tui.demo.hub.context import HandlerContext
from mlxk_tui.demo.hub.handlers.models import compute_checksums, quote_path
from mlxk_tui.demo.hub.replies import HubError, Reply, entry_not_found
from mlxk_tui.demo.hub.store.repos import Commit, HubRepo, HubTreeEntry
from mlxk_tui.demo.hub.store.users import check_readable

_TEXT_SUFFIXES = (".json", ".md", ".txt", ".jinja", ".py", ".yaml", ".yml")


async def resolve(context: HandlerContext, repo: HubRepo, revision: str, path: str) -> Reply:
    """Handle HEAD and GET of `/{id}/resolve/{revision}/{path}`.

    huggingface_hub (2.4, `get_hf_file_metadata`) reads the commit from X-Repo-Commit, and etag and size from
    X-Linked-Etag and X-Linked-Size; it only follows relative redirects for them. Large files get a 302 to
    the CDN, small ones a relative 307, like on the Hub since 2025.
    """
    check_readable(repo, context.user)
    commit = repo.find(revision)
    entry = commit.entries.get(path)
    if entry is None:
        error = entry_not_found(path).reply()
        error.headers["X-Repo-Commit"] = commit.oid
        return error
    await compute_checksums([entry])
    headers = _headers(commit, entry)
    if entry.lfs:
        return Reply(302, {**headers, "Location": _cdn_url(context, repo, entry)})
    if context.state.resolve_cache:
        query = urlencode({quote_path(repo.name, "resolve", revision, path): "", "etag": f'"{entry.etag}"'})
        location = f"{quote_path('api', 'resolve-cache', 'models', repo.name, commit.oid, path)}?{query}"
        return Reply(307, {**headers, "Location": location})
    return _file(entry, headers)


async def resolve_cached(context: HandlerContext, repo: HubRepo, revision: str, path: str) -> Reply:
    """Handle the target of the 307 of `resolve`."""
    check_readable(repo, context.user)
    commit = repo.find(revision)
    entry = commit.entries.get(path)
    if entry is None or entry.lfs:
        raise entry_not_found(path)
    return _file(entry, _headers(commit, entry))


async def cdn_file(context: HandlerContext) -> Reply:
    """Handle HEAD and GET on the CDN, which require a signed URL and no Authorization header.

    Object stores reject requests with two credentials. Here this also detects tokens that leak to the CDN.
    """
    if context.record.authorization:
        raise HubError(400, "Only one auth mechanism allowed; the URL is signed, remove Authorization.")
    if len(context.segments) < 4:
        raise HubError(404, "Not found")
    namespace, name, sha256, *parts = context.segments
    path = "/".join(parts)
    if context.query.get("Signature") != [context.state.sign(sha256, path)]:
        raise HubError(403, "The signature does not match or has expired.")
    repo = context.repo(f"{namespace}/{name}")
    for commit in list(repo.commits.values()):
        entry = commit.entries.get(path)
        if entry is not None and entry.lfs and entry.blob.sha256 == sha256:
            return _file(entry, {"Content-Disposition": f"inline; filename*=UTF-8''{quote(parts[-1])};"})
    raise HubError(404, "Not found")


def _cdn_url(context: HandlerContext, repo: HubRepo, entry: HubTreeEntry) -> str:
    path = quote_path(*repo.name.split("/"), entry.blob.sha256, *entry.path.split("/"))
    query = {"Expires": "4102444800", "Signature": context.state.sign(entry.blob.sha256, entry.path)}
    return f"{context.state.cdn_url}{path}?{urlencode(query)}"


def _headers(commit: Commit, entry: HubTreeEntry) -> dict[str, str]:
    headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes", "ETag": f'"{entry.etag}"'}
    headers["X-Linked-Etag"] = headers["ETag"]
    headers["X-Linked-Size"] = str(entry.blob.size)
    return headers


def _file(entry: HubTreeEntry, headers: dict[str, str]) -> Reply:
    kind = "text/plain; charset=utf-8" if entry.path.endswith(_TEXT_SUFFIXES) else "application/octet-stream"
    defaults = {"Accept-Ranges": "bytes", "ETag": f'"{entry.etag}"', "Content-Type": kind}
    return Reply(200, {**defaults, **headers}, entry.blob, ranges=True)
