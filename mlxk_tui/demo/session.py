"""A demo session: sample cache, tiny model and local hub, all of which go away with the program."""

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
"""Token of the demo's account at the local hub, `visitor`: it opens nothing anywhere else."""
_RATE = 2_000_000.0
"""Bytes a second that the local hub gives a connection, so that a transfer can be watched."""
_GONE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGINGFACE_HUB_TOKEN", API_KEYS)
"""Variables of the user's that would keep the demo from its hub, or hand it a token or a key."""

_Handler = Callable[[int, FrameType | None], object] | int | None


class DemoSession:
    """Makes the sample on entering and removes it on leaving, also after an exception, SIGTERM or SIGHUP.

    What a killed session left goes when the next one begins (`ScratchFolder`).

    Nothing of the user's is read or written: the hub folder lies in a fresh temporary folder, and so
    does, through the environment, what is remembered of it, and the config file with the API keys beside
    it: none is there. The environment also names the local hub and an account there, and allows to push
    to it. Hand `cache` to whatever works on it.

    Attributes:
        home: the temporary folder; there is room for more beside the cache.
        cache: the sample's cache.
        state: where the app keeps what outlives it; here it does not.
    """

    def __init__(self, *, now: float | None = None) -> None:
        """Prepare a session; `now` (seconds since the epoch) fixes the sample's dates."""
        self._now = now
        self._folder: ScratchFolder | None = None
        self._handlers: dict[signal.Signals, _Handler] = {}
        self._environment: dict[str, str | None] = {}
        self._hub: HubOnDemand | None = None

    @property
    def home(self) -> Path:
        """The session's folder.

        Raises:
            RuntimeError: the session has not been entered.
        """
        if self._folder is None:
            raise RuntimeError("the demo session has not been entered")
        return self._folder.path

    @property
    def cache(self) -> Cache:
        """The sample's cache.

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
        self._watch_signals()
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
                    **dict.fromkeys(_GONE),
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
        """Remove the folder and put the signal handlers back; a second call does nothing."""
        for number in self._handlers:  # a second signal would leave the folder behind
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
        """Set variables, None takes one away, and remember what they were."""
        self._environment = {name: os.environ.get(name) for name in values}
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _watch_signals(self) -> None:
        """Let a signal that would end the program at once unwind it instead."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._leave)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """Leave as the shell counts it; on the way out the folder is removed."""
        raise SystemExit(128 + number)
