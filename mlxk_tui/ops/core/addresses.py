"""Distinguishes loopback addresses from others."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool | None:
    """Return whether an address is a loopback address; None for a host name, which is not resolved.

    Args:
        host: an IPv4 or IPv6 address, with or without brackets and zone.
    """
    try:
        parsed = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
