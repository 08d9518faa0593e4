"""Reads the body of a request as JSON, within limits of size, time and nesting."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from mlxk_tui.ops.format import size
from mlxk_tui.server.errors import ApiError, invalid

MAX_DEPTH = 64
"""Deepest nesting of a body; JSON schemas of tools need about 20."""
_MAX_CONTAINERS = 1_000_000
"""Most opening brackets of a body, those in texts included: each may cost 64 bytes of memory."""


async def read_json(request: web.BaseRequest, max_bytes: int, timeout_s: float) -> dict[str, Any]:
    """Return the JSON object that a request carries.

    Raises:
        ApiError: 400 malformed, 408 too slow, 413 too large, 415 an encoding that is not read.
    """
    _check_head(request, max_bytes)
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        raw = await asyncio.wait_for(request.read(), timeout_s)
    except asyncio.TimeoutError:
        raise _closing(
            invalid(f"The body did not arrive within {timeout_s:g} seconds. Send it faster.", status=408)
        ) from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(max_bytes) from None
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError) as error:
        raise _closing(
            invalid(f"The body is not what its headers promise ({type(error).__name__}). Send it whole.")
        ) from None
    return parse_object(raw)


def _check_head(request: web.BaseRequest, max_bytes: int) -> None:
    if request.content_length is not None and request.content_length > max_bytes:
        raise _too_large(max_bytes)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise _closing(invalid("A compressed body is not read here. Send it as it is.", status=415))


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the object that `raw` is as JSON.

    Raises:
        ApiError: it is none, or goes beyond the limits.
    """
    if not raw.strip():
        raise invalid("The body is empty. Send a JSON object.")
    if raw.count(b"{") + raw.count(b"[") > _MAX_CONTAINERS:
        raise invalid("The body holds too many lists and objects. Send fewer.", status=413)
    try:
        value = json.loads(raw.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise invalid("The body is not UTF-8. Encode it as UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise invalid(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise invalid(f"The body is not JSON: {str(error)[:200]}.") from None
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    _check_depth(value)
    return value


def _check_depth(value: object) -> None:
    level: list[object] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        below: list[object] = []
        for container in level:
            items = container.values() if isinstance(container, dict) else container
            below += [item for item in items if isinstance(item, (dict, list))]  # type: ignore[attr-defined] # a list
        level = below


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _too_deep() -> ApiError:
    return invalid(f"The body is nested deeper than {MAX_DEPTH} levels. Make it flatter.")


def _too_large(max_bytes: int) -> ApiError:
    return _closing(invalid(f"The body is larger than {size(max_bytes)}. Send less.", status=413))


def _closing(error: ApiError) -> ApiError:
    """Let the connection end with the answer: the rest of the body is not waited for."""
    error.headers["Connection"] = "close"
    return error
