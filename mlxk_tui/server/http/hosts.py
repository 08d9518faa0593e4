"""Strict parsing of the host in the `Host` header and in absolute request targets.

`urlsplit` parses URLs and accepts `evil@localhost` and `localhost/x`, so a foreign name could pass for this
machine's. Here a host is a name or an IP address with an optional port, and nothing else.
"""

from __future__ import annotations

import ipaddress
import re

_AUTHORITY = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_.-]{1,255}))(?::(?P<port>[0-9]{0,5}))?"
)
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)


def parse_host(authority: str) -> str | None:
    """Return the host of `HOST[:PORT]` (RFC 9110, section 7.2), lower case, without brackets and final dot.

    None if it is anything else: user info, a path, percent-encoding, an IPv6 zone, or an invalid port.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found["port"] or 0) > 65535:
        return None
    if found["ipv6"] is not None:
        return found["ipv6"].lower() if ":" in found["ipv6"] and is_address(found["ipv6"]) else None
    name = found["name"].lower().removesuffix(".")
    return name if all(name.split(".")) else None


def target_authority(method: str, target: str) -> str | None:
    """Return the authority in a request target (RFC 9112, section 3.2), unchecked; None if it has none.

    Args:
        method: the request's method; the target of CONNECT is an authority.
        target: the raw request target: `/path`, `*`, or an absolute `http://HOST/path`.
    """
    if target.startswith("/") or target == "*":
        return None
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        return absolute[1]
    return target if method == "CONNECT" else ""


def is_address(host: str) -> bool:
    """Return whether a host is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
