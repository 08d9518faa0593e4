"""The host that a request is for: what `Host` and an absolute target say, read strictly.

`urlsplit` is made for URLs: it takes `evil@localhost` and `localhost/x` for a host, and a stranger's name
could pass for this machine's. Here a host is a name or an address with an optional port, and nothing else.
"""

from __future__ import annotations

import ipaddress
import re

_AUTHORITY = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_.-]{1,255}))(?::(?P<port>[0-9]{0,5}))?"
)
_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)


def host_of(authority: str) -> str | None:
    """Return the host of `HOST[:PORT]` (RFC 9110, 7.2) in lower case, without brackets and final dot.

    None where it is anything else: with user info, a path, percent-encoding, a zone, or a port that is none.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None or int(found["port"] or 0) > 65535:
        return None
    if found["ipv6"] is not None:
        return found["ipv6"].lower() if ":" in found["ipv6"] and is_address(found["ipv6"]) else None
    name = found["name"].lower().removesuffix(".")
    return name if all(name.split(".")) else None


def authority_of(method: str, target: str) -> str | None:
    """Return the authority that a request target holds, maybe malformed; None where it holds none.

    Args:
        method: of the request; CONNECT has an authority alone as its target.
        target: as it was sent: `/path`, `*`, or an absolute `http://HOST/path`.
    """
    if target.startswith("/") or target == "*":
        return None
    absolute = _ABSOLUTE.match(target)
    if absolute is not None:
        return absolute[1]
    return target if method == "CONNECT" else ""


def is_address(host: str) -> bool:
    """Tell whether a host is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
