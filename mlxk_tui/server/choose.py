"""Which model a request means: its name as everywhere, an alias, or none."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import Runnable, find_runnable
from mlxk_tui.ops import catalog
from mlxk_tui.ops.cache import Cache
from mlxk_tui.ops.contract import Health, Model
from mlxk_tui.server.errors import ApiError, invalid

_REMEMBERED_S = 5.0
"""How long a found model is taken for what it was; the cache may change at any time."""
_REMEMBERED = 64


@dataclass(frozen=True)
class _Known:
    model: Runnable
    until: float


class Chooser:
    """Finds models in the cache; nothing that a request says is ever a path or is downloaded."""

    def __init__(self, engine: Engine, cache: Cache) -> None:
        self.default: str | None = None
        """The model of requests that name none."""
        self.aliases: Mapping[str, str] = {}
        self._engine = engine
        self._cache = cache
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._listing: asyncio.Task[list[Model]] | None = None
        self._listed_until = 0.0

    async def choose(self, name: str | None) -> Runnable:
        """Return the model for a request.

        Raises:
            ApiError: 400: no model is named, and there is none to take instead.
            OpError: those of `find_runnable`.
        """
        spec = self._spec(name)
        known = self._known.get(spec)
        now = time.monotonic()
        if known is not None and known.until > now:
            return known.model
        model = await find_runnable(self._cache, spec)
        self._known[spec] = _Known(model, time.monotonic() + _REMEMBERED_S)
        self._known.move_to_end(spec)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return model

    def _spec(self, name: str | None) -> str:
        if name is not None and name.strip():
            return self.aliases.get(name, name)
        if self.default is not None:
            return self.aliases.get(self.default, self.default)
        loaded = self._engine.status.model
        if loaded is not None:
            return loaded.name
        raise invalid("No model is named and none is loaded. GET /v1/models lists the names.", "model")

    async def models(self) -> list[Model]:
        """Return the sound models that can run here, sorted by name.

        Raises:
            OpError: those of `list_models`.
        """
        if self._listing is None or (self._listing.done() and time.monotonic() > self._listed_until):
            self._listing = asyncio.create_task(self._list())
        return await asyncio.shield(self._listing)

    async def _list(self) -> list[Model]:
        try:
            found = (await catalog.list_models(self._cache)).models
        except BaseException:
            self._listed_until = 0.0
            raise
        self._listed_until = time.monotonic() + _REMEMBERED_S / 2
        return [model for model in found if model.health is Health.HEALTHY and model.runtime_compatible]

    async def model(self, name: str) -> Model:
        """Return one model that can run here.

        Raises:
            ApiError: 422 where it cannot run.
            OpError: those of `inspect_model`.
        """
        report = await catalog.inspect_model(self._cache, self._spec(name))
        model = report.model
        if model.health is not Health.HEALTHY or not model.runtime_compatible:
            reason = model.reason or "it has no snapshot"
            raise ApiError(
                422, "model_not_runnable", f"{model.name} cannot run here: {reason}", param="model"
            )
        return model
