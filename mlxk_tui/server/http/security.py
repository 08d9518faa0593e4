"""Access control: `Host`, `Origin` and `Sec-Fetch-Site` headers, CORS, and API keys.

A web page that a user visits can send requests to this machine. The browser marks them with `Origin`, or,
for images, scripts and frames, with `Sec-Fetch-Site` only. If the page's domain resolves to this machine
(DNS rebinding), its name is in `Host`.
"""

from __future__ import annotations

import re
import socket

from aiohttp import HttpVersion11, web

from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.retry_after import HEADER as RETRY_AFTER
from mlxk_tui.server.errors import ApiError, invalid
from mlxk_tui.server.http.hosts import is_address, parse_host, target_authority
from mlxk_tui.server.http.keys import find_key_name
from mlxk_tui.server.options import ServerOptions

_ALLOWED_HEADERS = (
    *("Authorization", "Content-Type", "User-Agent", "X-API-Key", "X-Request-ID"),
    *("Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access"),
    *("OpenAI-Beta", "OpenAI-Organization", "OpenAI-Project"),
)
_SDK_HEADER = re.compile(r"x-stainless-[a-z0-9-]{1,50}")
"""Headers of OpenAI's and Anthropic's JavaScript clients; the names differ between versions."""
_MAX_SDK_HEADERS = 32
_OWN_SITES = {"same-origin", "none"}
"""Values of `Sec-Fetch-Site` for a page of this server, and for a user who entered the URL."""
_EXPOSED_HEADERS = f"X-Request-ID, {RETRY_AFTER}"


class Guard:
    """Checks requests against the hosts, origins and API keys in the options."""

    def __init__(self, options: ServerOptions) -> None:
        self._keys = dict(options.api_keys)
        self._any_origin = "*" in options.origins
        self._origins = {origin.rstrip("/").lower() for origin in options.origins}
        machine = socket.gethostname().lower()
        short = machine.partition(".")[0]  # macOS returns mac.local, and clients use mac, too
        self._names = {"localhost", machine, short, f"{short}.local", options.host.lower()}
        self._names |= {name.lower() for name in options.hosts}

    def check_host(self, request: web.BaseRequest) -> None:
        """Check the `Host` header and the host of an absolute target, against DNS rebinding.

        IP addresses are allowed: a page that was loaded from one can't make it resolve to this machine.

        Raises:
            ApiError: 400 if the header is missing, repeated or malformed; 403 if the name is not allowed.
        """
        hosts = request.headers.getall("Host", [])
        if len(hosts) > 1:
            raise invalid("The request has more than one Host header. Send one.")
        if not hosts and request.version >= HttpVersion11:
            raise invalid("The request has no Host header. Send one; HTTP/1.1 requires it.")
        # A missing or empty Host is allowed: browsers always send a name.
        self._check_authority(hosts[0] if hosts and hosts[0] else None, "Host header")
        self._check_authority(target_authority(request.method, request.raw_path), "request target")

    def _check_authority(self, authority: str | None, where: str) -> None:
        if authority is None:
            return
        name = parse_host(authority)
        if name is None:
            raise invalid(f"The {where} is malformed. Send a name or an IP address, optionally with a port.")
        if not (name in self._names or name.endswith(".localhost") or is_address(name)):
            raise ApiError(
                403,
                ErrorType.ACCESS_DENIED.value,
                f"The name in the {where} is not allowed. Use the server's IP address, or add the name to "
                "the server's allowed hosts.",
            )

    def check_site(self, request: web.BaseRequest) -> None:
        """Reject requests that a browser makes for a page of another site without sending `Origin`.

        Browsers fetch images, scripts, style sheets and frames this way. Links that a user follows are
        allowed: they open a page that the other site can't read.
        See https://www.w3.org/TR/fetch-metadata/.

        Raises:
            ApiError: 403 if another site made the request.
        """
        if self._any_origin or "Origin" in request.headers:  # see `cors`
            return
        sites = request.headers.getall("Sec-Fetch-Site", [])
        if all(site.strip().lower() in _OWN_SITES for site in sites):
            return
        navigation = (
            request.headers.get("Sec-Fetch-Mode") == "navigate"
            and request.headers.get("Sec-Fetch-Dest") == "document"
        )
        if navigation and request.method in {"GET", "HEAD"}:
            return
        raise ApiError(
            403,
            ErrorType.ACCESS_DENIED.value,
            "Pages of other websites may not request this. To allow it, add the site to the server's "
            "allowed origins, and request it with CORS.",
        )

    def cors(self, request: web.BaseRequest) -> dict[str, str]:
        """Return the CORS headers of the response; empty if the request has no `Origin`.

        Raises:
            ApiError: 400 if there are several `Origin` headers; 403 if the origin is not allowed.
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
                "Web pages of this origin may not call the server. To allow it, add it to the server's "
                "allowed origins.",
                headers={"Vary": "Origin"},
            )
        return {
            "Access-Control-Allow-Origin": "*" if self._any_origin else origin,
            "Access-Control-Expose-Headers": _EXPOSED_HEADERS,
            "Vary": "Origin",
        }

    def preflight(self, request: web.BaseRequest, allowed: dict[str, str]) -> web.Response:
        """Return the response to a CORS preflight request; `allowed` are the headers from `cors`."""
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
        """Return the name of the request's API key; None if it is missing or unknown."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key")
        return find_key_name(given, self._keys)

    @property
    def needs_key(self) -> bool:
        """Whether requests need an API key."""
        return bool(self._keys)

    def invalid_key_error(self) -> ApiError:
        """Return the error for a request without a valid API key."""
        return ApiError(
            401,
            ErrorType.AUTH_ERROR.value,
            "The API key is missing or wrong. Send it as 'Authorization: Bearer KEY'.",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _sdk_headers(request: web.BaseRequest) -> list[str]:
    """Return the SDK headers that a preflight request lists: CORS allows names only, no patterns."""
    requested = ",".join(request.headers.getall("Access-Control-Request-Headers", []))
    names = (name.strip(" \t").lower() for name in requested.split(","))
    return list(dict.fromkeys(filter(_SDK_HEADER.fullmatch, names)))[:_MAX_SDK_HEADERS]
