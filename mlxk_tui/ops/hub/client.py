"""huggingface_hub itself: imported late, made quiet and given time-outs. Nothing else imports it.

Everything here blocks and is for threads: the import alone takes 0.2 s.
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
"""Name in the user agent."""


@dataclass(frozen=True)
class Timeouts:
    """Bounds on waiting for the hub, in seconds."""

    connect_s: float = 8.0
    """For a connection."""
    read_s: float = 10.0
    """For the next bytes of an answer."""
    total_s: float = 25.0
    """For one question, its repetitions included."""


_setup = threading.Lock()
_timeouts_in_use: Timeouts | None = None


def prepare(timeouts: Timeouts | None = None) -> None:
    """Import huggingface_hub and make it quiet; with `timeouts` give the client that it shares these.

    It prints progress bars and log lines to stderr, which a screen may be drawn on, and asks the hub for
    a list of agents.
    """
    global _timeouts_in_use  # noqa: PLW0603 - what is set is huggingface_hub's own, one a process
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
            logger.addHandler(logging.NullHandler())  # else Python's last resort prints to stderr
        if timeouts is not None and timeouts != _timeouts_in_use:
            huggingface_hub.set_client_factory(lambda: new_client(timeouts, hooks=True))
            _timeouts_in_use = timeouts


def _utils() -> Any:
    """Return huggingface_hub.utils, whose functions are public without being declared so."""
    return importlib.import_module("huggingface_hub.utils")


def http_library() -> Any:
    """Return the HTTP library of the installed huggingface_hub: httpx2, or httpx before version 2."""
    import huggingface_hub

    return importlib.import_module(
        "httpx2" if int(huggingface_hub.__version__.split(".")[0]) >= 2 else "httpx"
    )


def new_client(timeouts: Timeouts, *, hooks: bool = False, transport: Any = None) -> Any:
    """Return an HTTP client that never waits without a bound.

    Args:
        timeouts: bounds; they also hold where huggingface_hub explicitly asks for none.
        hooks: add huggingface_hub's own request hook, for a client that is handed to it.
        transport: moves the bytes in place of the library's own.
    """
    http = http_library()
    client: Any = http.Client
    bounds = http.Timeout(timeouts.read_s, connect=timeouts.connect_s)

    class BoundedClient(client):  # type: ignore[misc]  # which library it is shows at run time
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
    """Return the headers of a request: the token, if any, and who asks."""
    headers: dict[str, str] = _utils().build_hf_headers(
        token=token or False, library_name=LIBRARY, library_version=__version__
    )
    return headers


def raise_for_status(response: Any) -> None:
    """Raise huggingface_hub's own error for an answer that is one."""
    _utils().hf_raise_for_status(response)


def stored_token() -> str | None:
    """Return the token that `hf auth login` keeps; that of a browser login is renewed when it is due."""
    from huggingface_hub import get_token

    return get_token()


def new_api(endpoint: str, token: str | None) -> HfApi:
    """Return a client of huggingface_hub for one hub and account."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token or False, library_name=LIBRARY, library_version=__version__)
