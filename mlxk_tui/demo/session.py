"""A demo session: sample cache, tiny model and local hub, which are removed when the program exits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType

from mlxk_tui.demo import tiny_model
from mlxk_tui.demo.hub.on_demand import HubOnDemand
from mlxk_tui.demo.sample import build_sample_cache
from mlxk_tui.demo.scratch import ScratchFolder
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.health.verdict_cache import ENVIRONMENT_VARIABLE as VERDICTS
from mlxk_tui.server.http.keys import VARIABLE as API_KEYS
from mlxk_tui.settings import ENV_PREFIX

ACCOUNT = "hf_local_other"
"""Token of the demo's account `visitor` on the local hub; it isn't valid anywhere else."""
_RATE = 2_000_000.0
"""Bytes per second and connection of the local hub, slow enough to watch a transfer."""
_UNSET = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGINGFACE_HUB_TOKEN", API_KEYS)
"""Environment variables to unset: they disable the hub, or contain the user's tokens and keys."""

_Handler = Callable[[int, FrameType | None], object] | int | None


class DemoSession:
    """Creates the sample on entering, and removes it on leaving, an exception, SIGTERM or SIGHUP.

    The files of a killed session are removed by the next one (`ScratchFolder`).

    The session doesn't read or write the user's files. The cache is in a new temporary folder. Environment
    variables move the verdict cache and the config file there too, select the local hub and an account on
    it, and enable push.

    Attributes:
    home: the temporary folder; it can hold other files too.
    cache: the sample cache.
    state: the state folder for the app.
    """

    def __init__(self, *, now: float | None = None) -> None:
        """Prepare a session.

        Args:
            now: the current time in seconds since the epoch, for reproducible dates; None for the clock.
        """
        self._now = now
        self._folder: ScratchFolder | None = None
        self._handlers: dict[signal.Signals, _Handler] = {}
        self._environment: dict[str, str | None] = {}
        self._hub: HubOnDemand | None = None

    @property
    def home(self) -> Path:
        """The temporary folder of the session.

        Raises:
            RuntimeError: the session has not been entered.
        """
        if self._folder is None:
            raise RuntimeError("the demo session has not been entered")
        return self._folder.path

    @property
    def cache(self) -> Cache:
        """The sample cache.

        Raises:
            RuntimeError: the session has not been entered.
        """
        return Cache(self.home / "hub")

    @property
    def state(self) -> Path:
        """The app's folder for state and chats.

        Raises:
            RuntimeError: the session has not been entered.
        """
        return self.home / "state"

    def __enter__(self) -> DemoSession:
        self._handle_signals()
        try:
            self._folder = ScratchFolder()
            self._hub = HubOnDemand(rate=_RATE, scratch=self.home)
            self._set_environment(
                {
                    VERDICTS: str(self.home / "verdicts"),
                    f"{ENV_PREFIX}CONFIG": str(self.home / "config.toml"),
                    "HF_ENDPOINT": self._hub.url,
                    "HF_TOKEN": ACCOUNT,
                    "MLXK2_ENABLE_EXPERIMENTAL_PUSH": "1",
                    **dict.fromkeys(_UNSET),
                }
            )
            build_sample_cache(self.cache.root, now=self._now)
            tiny_model.install(self.cache.root)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder and restore environment and signal handlers. Calling it twice is allowed."""
        for number in self._handlers:  # another signal must not interrupt the removal
            signal.signal(number, signal.SIG_IGN)
        try:
            if self._hub is not None:
                self._hub.close()
                self._hub = None
            self._set_environment(self._environment)
            self._environment = {}
            if self._folder is not None:
                self._folder.remove()
                self._folder = None
        finally:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            self._handlers.clear()

    def _set_environment(self, values: Mapping[str, str | None]) -> None:
        """Set environment variables, or unset them if None, and save the old values."""
        self._environment = {name: os.environ.get(name) for name in values}
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _handle_signals(self) -> None:
        """Handle SIGTERM and SIGHUP by raising `SystemExit`, if they have the default handler."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._exit)

    def _exit(self, number: int, frame: FrameType | None) -> None:
        """Exit with status 128 + signal number, as shells do; `__exit__` then removes the folder."""
        raise SystemExit(128 + number)
