"""Whom a network address reaches."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool | None:
    """Tell whether an address reaches this machine alone; None for a name, which only binding tells.

    Args:
        host: IPv4 or IPv6, in brackets or not, with a zone or not.
    """
    try:
        parsed = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
