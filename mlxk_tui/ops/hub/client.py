"""Imports huggingface_hub on demand, silences it and sets time-outs.

All functions block; call them in a thread. The import alone takes 0.2 s.
"""

from __future__ import annotations

import importlib
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxk_tui import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LIBRARY = "mlxk-tui"
"""Library name in the user agent."""


@dataclass(frozen=True)
class Timeouts:
    """Time-outs of requests to the hub, in seconds."""

    connect_s: float = 8.0
    """To establish a connection."""
    read_s: float = 10.0
    """To receive the next bytes of a response."""
    total_s: float = 25.0
    """For one request including its retries."""


_setup = threading.Lock()
_timeouts_in_use: Timeouts | None = None


def prepare(timeouts: Timeouts | None = None) -> None:
    """Import and silence huggingface_hub; with `timeouts`, set those of its shared HTTP client.

    By default it prints progress bars and log lines to stderr, which would disturb the screen, and requests a
    list of agents from the hub.
    """
    global _timeouts_in_use  # noqa: PLW0603 - huggingface_hub has one client per process
    with _setup:
        import huggingface_hub
        from huggingface_hub import constants

        if not constants.HF_HUB_DISABLE_TELEMETRY:
            constants.HF_HUB_DISABLE_TELEMETRY = True
        _utils().disable_progress_bars()
        logger = logging.getLogger("huggingface_hub")
        for handler in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
            logger.removeHandler(handler)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())  # otherwise Python's last resort prints to stderr
        if timeouts is not None and timeouts != _timeouts_in_use:
            huggingface_hub.set_client_factory(lambda: new_client(timeouts, hooks=True))
            _timeouts_in_use = timeouts


def _utils() -> Any:
    """Return huggingface_hub.utils, whose functions are public but not declared as exports."""
    return importlib.import_module("huggingface_hub.utils")


def http_library() -> Any:
    """Return the HTTP library that huggingface_hub uses: httpx2, or httpx before version 2."""
    import huggingface_hub

    return importlib.import_module(
        "httpx2" if int(huggingface_hub.__version__.split(".")[0]) >= 2 else "httpx"
    )


def new_client(timeouts: Timeouts, *, hooks: bool = False, transport: Any = None) -> Any:
    """Return an HTTP client with time-outs on every request.

    Args:
        timeouts: the time-outs; they also apply where huggingface_hub explicitly requests none.
        hooks: add huggingface_hub's request hook, for a client that it will use.
        transport: replaces the library's transport.
    """
    http = http_library()
    client: Any = http.Client
    bounds = http.Timeout(timeouts.read_s, connect=timeouts.connect_s)

    class BoundedClient(client):  # type: ignore[misc]  # the base class is known only at run time
        def send(self, request: Any, **options: Any) -> Any:
            given = request.extensions.get("timeout") or {}
            limits = {name: given.get(name) or bound for name, bound in bounds.as_dict().items()}
            request.extensions = {**request.extensions, "timeout": limits}
            return super().send(request, **options)

    events: dict[str, list[Any]] = {}
    if hooks:
        from huggingface_hub.utils._http import hf_request_event_hook

        events = {"request": [hf_request_event_hook]}
    extra = {} if transport is None else {"transport": transport}
    return BoundedClient(event_hooks=events, follow_redirects=True, timeout=bounds, **extra)


def headers_for(token: str | None) -> dict[str, str]:
    """Return the headers of a request: user agent, and the token if there is one."""
    headers: dict[str, str] = _utils().build_hf_headers(
        token=token or False, library_name=LIBRARY, library_version=__version__
    )
    return headers


def raise_for_status(response: Any) -> None:
    """Raise huggingface_hub's exception for an error response."""
    _utils().hf_raise_for_status(response)


def stored_token() -> str | None:
    """Return the token stored by `hf auth login`; a token of a browser login is renewed if due."""
    from huggingface_hub import get_token

    return get_token()


def new_api(endpoint: str, token: str | None) -> HfApi:
    """Return an HfApi client for a hub and an account."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token or False, library_name=LIBRARY, library_version=__version__)
