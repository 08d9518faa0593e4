"""Runs `share`: listens, prints one envelope, and serves until a signal stops it."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui import settings
from mlxk_tui.ops.contract.results import Command
from mlxk_tui.ops.contract.sharing import NotSharedModel, ShareData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.share.shared_models import SharedModels
from mlxk_tui.server.http import keys
from mlxk_tui.server.options import Address, ServerOptions
from mlxk_tui.server.share.share_server import ShareServer
from mlxk_tui_headless.serving.listener import ListeningCommand

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession


def find_keys(given: Sequence[str], file: str | None) -> Mapping[str, str]:
    """Return the keys of the command line, the environment or the server's key file, in that order.

    Args:
        given: values of `--api-key`.
        file: value of `--api-key-file`; it must contain a key.

    Raises:
        OpError: `validation_error`, or `permission_denied` if a file of keys is not private.
    """
    found = keys.parse_keys(given, "--api-key")
    if file is not None:
        in_file = keys.read_keys(Path(file).expanduser())
        if not in_file:
            raise OpError(ErrorType.VALIDATION_ERROR, f"There is no API key in {printable(file)}.")
        found = {**in_file, **found}
    return found or keys.from_environment(os.environ) or keys.read_keys(settings.load().key_file)


def exact_names(session: CommandSession, specs: Sequence[str]) -> frozenset[str]:
    """Return the full names of cached models.

    Raises:
        OpError: `model_not_found`, `ambiguous_match`; `validation_error` for a name with a revision.
    """
    names = set()
    for spec in specs:
        found = session.cache.find(spec, partial=False)
        if found.spec.revision is not None:
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                f"All revisions of {found.ref.name} are shared; its name is given without one.",
            )
        names.add(found.ref.name)
    return frozenset(names)


def run_share(session: CommandSession, options: ServerOptions, names: frozenset[str], log_level: str) -> None:
    """Share the cache until a signal; the envelope is printed as soon as the server listens.

    Args:
        session: what the command works with.
        options: address, keys and host names.
        names: the models to share; empty means all public ones.
        log_level: log level on stderr.

    Raises:
        OpError: the errors of `ShareServer.start`, and `permission_denied` or `cache_not_found`.
    """
    _ShareCommand(session, options, names).run(log_level)


class _ShareCommand(ListeningCommand):
    def __init__(self, session: CommandSession, options: ServerOptions, names: frozenset[str]) -> None:
        super().__init__(session)
        self._models = SharedModels(session.cache, names)
        self._server = ShareServer(self._models, options)
        self._needs_key = bool(options.api_keys)

    async def listen(self) -> None:
        try:
            address = await self._server.start()
            gc.enable()  # off at the start, because most commands end at once
            self.report(Command.SHARE, await asyncio.to_thread(self._describe, address))
            await self.stop.wait()
        finally:
            await self._server.stop()

    def _describe(self, address: Address) -> ShareData:
        public = Address(_public_host(address.host), address.port)
        return ShareData(
            url=address.url,
            endpoint=public.url if self._server.public else address.url,
            host=address.host,
            port=address.port,
            needs_key=self._needs_key,
            models=[shared.name for shared in self._models.all()],
            not_shared=[
                NotSharedModel(name=name, reason=error.reason, message=error.message)
                for name, error in self._models.not_shared().items()
            ],
            pid=os.getpid(),
        )


def _public_host(host: str) -> str:
    """Return the host by which other machines reach this one: its name, if it listens on every address."""
    return socket.gethostname() if host in {"", "0.0.0.0", "::"} else host  # noqa: S104 - shown, not bound
