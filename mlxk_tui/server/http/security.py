"""Who may call: the `Host`, `Origin` and `Sec-Fetch-Site` of a request, CORS, and API keys.

A web page that a user visits can send requests to this machine. Its browser says so in `Origin`, or, for an
image, a script or a frame, in `Sec-Fetch-Site` alone; and where the page's own name was pointed here (DNS
rebinding) that name is in `Host`.
"""

from __future__ import annotations

import re
import socket

from aiohttp import HttpVersion11, web

from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.retry_after import HEADER as RETRY_AFTER
from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.http.hosts import authority_of, host_of, is_address
from mlxk_tui.server.http.keys import name_of
from mlxk_tui.server.options import ServerOptions

_ALLOWED_HEADERS = (
    *("Authorization", "Content-Type", "User-Agent", "X-API-Key", "X-Request-ID"),
    *("Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access"),
    *("OpenAI-Beta", "OpenAI-Organization", "OpenAI-Project"),
)
_SDK_HEADER = re.compile(r"x-stainless-[a-z0-9-]{1,50}")
"""What OpenAI's and Anthropic's JavaScript clients tell of themselves; each version tells something else."""
_MAX_SDK_HEADERS = 32
_OWN_SITES = {"same-origin", "none"}
"""Values of `Sec-Fetch-Site`: of a page that came from here, and of a user who typed the address."""
_EXPOSED_HEADERS = f"X-Request-ID, {RETRY_AFTER}"


class Guard:
    """The rules of some options."""

    def __init__(self, options: ServerOptions) -> None:
        self._keys = dict(options.api_keys)
        self._any_origin = "*" in options.origins
        self._origins = {origin.rstrip("/").lower() for origin in options.origins}
        machine = socket.gethostname().lower()
        self._names = {"localhost", machine, f"{machine}.local", options.host.lower()}
        self._names |= {name.lower() for name in options.hosts}

    def check_host(self, request: web.BaseRequest) -> None:
        """Refuse a `Host`, or the host of an absolute target, that may be a stranger's name for this machine.

        Addresses are safe: a page that was loaded from one has no other to lead here.

        Raises:
            ApiError: 400 none, more than one, or malformed; 403 a stranger's.
        """
        hosts = request.headers.getall("Host", [])
        if len(hosts) > 1:
            raise invalid("The request has more than one Host header. Send one.")
        if not hosts and request.version >= HttpVersion11:
            raise invalid("The request has no Host header. Send one, as HTTP/1.1 asks for.")
        self._check_name(hosts[0] if hosts and hosts[0] else None, "Host header")  # no browser sends none
        self._check_name(authority_of(request.method, request.raw_path), "request's target")

    def _check_name(self, authority: str | None, where: str) -> None:
        if authority is None:
            return
        name = host_of(authority)
        if name is None:
            raise invalid(f"The {where} is malformed: it needs a name or an address, and maybe a port.")
        if not (name in self._names or name.endswith(".localhost") or is_address(name)):
            raise ApiError(
                403,
                ErrorType.ACCESS_DENIED.value,
                f"This server does not answer to the name in the {where}. Use its address, or have "
                "the name added to the hosts that it allows.",
            )

    def check_site(self, request: web.BaseRequest) -> None:
        """Refuse what a page of another site has a browser fetch without saying where the page is from.

        That is how images, scripts, style sheets and frames are fetched. A link that somebody follows
        opens a page of its own, which the other site cannot read.

        Raises:
            ApiError: 403.
        """
        if self._any_origin or "Origin" in request.headers:  # see `cors`
            return
        sites = request.headers.getall("Sec-Fetch-Site", [])
        if all(site.strip().lower() in _OWN_SITES for site in sites):
            return
        opened = (
            request.headers.get("Sec-Fetch-Mode") == "navigate"
            and request.headers.get("Sec-Fetch-Dest") == "document"
        )
        if opened and request.method in {"GET", "HEAD"}:
            return
        raise ApiError(
            403,
            ErrorType.ACCESS_DENIED.value,
            "Pages of other web sites may not fetch this. Add the site to the origins that the server "
            "allows, and have the page ask with CORS, if it should.",
        )

    def cors(self, request: web.BaseRequest) -> dict[str, str]:
        """Return the CORS headers of the answer; none for a caller that is no web page.

        Raises:
            ApiError: 400 more than one origin; 403 a page of an origin that the user has not named.
        """
        origins = request.headers.getall("Origin", [])
        if not origins:
            return {}
        if len(origins) > 1:
            raise invalid("The request has more than one Origin header. Send one.")
        origin = origins[0]
        own = f"http://{request.headers.get('Host', '')}".lower()
        if not (self._any_origin or origin.lower() in self._origins or origin.lower() == own):
            raise ApiError(
                403,
                ErrorType.ACCESS_DENIED.value,
                "Web pages of this origin may not call the server. Add it to the origins that the server "
                "allows if they should.",
                headers={"Vary": "Origin"},
            )
        return {
            "Access-Control-Allow-Origin": "*" if self._any_origin else origin,
            "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
            "Vary": "Origin",
        }

    def preflight(self, request: web.BaseRequest, allowed: dict[str, str]) -> web.Response:
        """Answer a browser that asks before it calls; `allowed` comes from `cors`."""
        headers = {
            **allowed,
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": ", ".join((*_ALLOWED_HEADERS, *_sdk_headers(request))),
            "Access-Control-Max-Age": "600",
        }
        if request.headers.get("Access-Control-Request-Private-Network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"
        return web.Response(status=204, headers=headers)

    def key_name(self, request: web.BaseRequest) -> str | None:
        """Return the name of the request's key, or None: without keys, or with a wrong one."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key")
        return name_of(given, self._keys)

    @property
    def needs_key(self) -> bool:
        """Whether there are keys."""
        return bool(self._keys)

    def refuse_key(self) -> ApiError:
        """Return the error of a request without a right key."""
        return ApiError(
            401,
            ErrorType.AUTH_ERROR.value,
            "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'.",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _sdk_headers(request: web.BaseRequest) -> list[str]:
    """Return which headers of clients a preflight names; a pattern cannot be allowed, only names can."""
    asked = ",".join(request.headers.getall("Access-Control-Request-Headers", []))
    names = (name.strip(" \t").lower() for name in asked.split(","))
    return list(dict.fromkeys(filter(_SDK_HEADER.fullmatch, names)))[:_MAX_SDK_HEADERS]
