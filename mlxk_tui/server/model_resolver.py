"""Which model a request means: its full name or last part, a revision of it, an alias, or none.

A part of a name is for people at a keyboard. A program that sends one has a typo or another server's
name in its settings, and is better told than answered by whatever model has that part in its name.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import Runnable, find_runnable
from mlxk_tui.engine.status import ModelStatus
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.names import parse_spec
from mlxk_tui.ops.catalog import catalog
from mlxk_tui.ops.contract.results import Health, Model
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.error_text import error_text
from mlxk_tui.server.errors import ApiError, invalid

_REMEMBERED_S = 5.0
"""How long a found model is taken for what it was; the cache may change at any time."""
_REMEMBERED = 64


@dataclass(frozen=True)
class _Known:
    model: Runnable
    until: float


@dataclass(frozen=True)
class Offered:
    """A model under a name that requests may use."""

    id: str
    """Its own name, with the revision where one was asked for, or an alias."""
    model: Model


def commit_of(loaded: ModelStatus) -> str:
    """Return the commit of the model in memory: its folder is the snapshot's."""
    return Path(loaded.folder).name


def spec_of(loaded: ModelStatus) -> str:
    """Return the `NAME@REV` that stands for the model in memory, whatever its repo's `main` is now."""
    return f"{loaded.name}@{commit_of(loaded)}"


@dataclass(frozen=True)
class _Spec:
    """What to look for in the cache."""

    text: str
    """`NAME[@REV]`."""
    partial: bool
    """Whether a part of a name will do: whoever runs the server wrote it, not a request."""


class ModelResolver:
    """Finds models in the cache; nothing that a request says is ever a path or is downloaded."""

    def __init__(self, engine: Engine, cache: Cache) -> None:
        self.default: str | None = None
        """The model of requests that name none."""
        self.aliases: Mapping[str, str] = {}
        self.force = False
        """Whether models are loaded that do not fit into memory."""
        self.lost: Callable[[], str | None] = lambda: None
        """Returns the `NAME@REV` of a model that was in memory when the engine crashed, until it is back."""
        self._engine = engine
        self._cache = cache
        self._known: OrderedDict[_Spec, _Known] = OrderedDict()
        self._listing: asyncio.Task[list[Offered]] | None = None
        self._listed_aliases: Mapping[str, str] = {}
        self._listed_until = 0.0

    async def choose(self, name: str | None) -> Runnable:
        """Return the model for a request.

        Raises:
            ApiError: 400: no model is named, and there is none to take instead; 404: there is none of
                that name; 409: there are several.
            OpError: those of `find_runnable`.
        """
        spec = self._spec(name)
        known = self._known.get(spec)
        now = time.monotonic()
        if known is not None and known.until > now:
            return known.model
        try:
            model = await self._find(spec)
        except OpError as error:
            raise _told(error, spec) from None
        self._known[spec] = _Known(model, time.monotonic() + _REMEMBERED_S)
        self._known.move_to_end(spec)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return model

    async def _find(self, spec: _Spec) -> Runnable:
        """Find a model; one that is too large only where somebody has forced it, for good or into memory."""
        try:
            return await find_runnable(self._cache, spec.text, force=self.force, partial=spec.partial)
        except OpError as error:
            loaded = self._engine.status.model
            if error.type is not ErrorType.INSUFFICIENT_MEMORY or loaded is None:
                raise
            model = await find_runnable(self._cache, spec.text, force=True, partial=spec.partial)
            if str(model.folder) != loaded.folder:
                raise
            return model

    def _spec(self, name: str | None) -> _Spec:
        if name is not None and name.strip():
            alias = self.aliases.get(name)
            return _Spec(name, partial=False) if alias is None else _Spec(alias, partial=True)
        if self.default is not None:
            return _Spec(self.aliases.get(self.default, self.default), partial=True)
        loaded = self._engine.status.model
        coming = spec_of(loaded) if loaded is not None else self.lost() or self._engine.status.loading
        if coming is not None:
            return _Spec(coming, partial=False)
        raise invalid("No model is named and none is loaded. GET /v1/models lists the names.", "model")

    async def models(self) -> list[Offered]:
        """Return the sound models that can run here, sorted by name, then the aliases that lead to one.

        Raises:
            OpError: those of `list_models`.
        """
        old = self._listing is None or (self._listing.done() and time.monotonic() > self._listed_until)
        if self._listing is None or old or self._listed_aliases != self.aliases:
            self._listed_aliases = self.aliases
            self._listing = asyncio.create_task(self._list(self.aliases))
        return await asyncio.shield(self._listing)

    async def _list(self, aliases: Mapping[str, str]) -> list[Offered]:
        try:
            found = (await catalog.list_models(self._cache)).models
        except BaseException:
            self._listed_until = 0.0
            raise
        sound = {model.name: model for model in found if _can_run(model)}
        offered = {name: Offered(name, model) for name, model in sound.items()}
        for alias, spec in aliases.items():
            offered.pop(alias, None)  # it hides a model of that name
            try:
                model = sound[spec] if spec in sound else await self._inspect(_Spec(spec, partial=True))
            except (OpError, ApiError):  # a request for it finds out why
                continue
            offered[alias] = Offered(alias, model)
        self._listed_until = time.monotonic() + _REMEMBERED_S / 2
        return list(offered.values())

    async def model(self, name: str) -> Offered:
        """Return one model that can run here.

        Raises:
            ApiError: 422 where it cannot run; 404, 409: there is none of that name, or several.
            OpError: those of `inspect_model`.
        """
        if not name.strip():
            raise ApiError(
                404, ErrorType.MODEL_NOT_FOUND.value, "A blank is no name of a model.", param="model"
            )
        spec = self._spec(name)
        try:
            model = await self._inspect(spec)
        except OpError as error:
            told = _told(error, spec)
            if (
                isinstance(told, ApiError) and told.status == 400
            ):  # here a name is a place, and nothing is there
                told = ApiError(404, ErrorType.MODEL_NOT_FOUND.value, told.message, param="model")
            raise told from None
        if name in self.aliases:
            return Offered(name, model)
        revision = parse_spec(name).revision
        return Offered(model.name if revision is None else f"{model.name}@{revision}", model)

    async def _inspect(self, spec: _Spec) -> Model:
        model = (await catalog.inspect_model(self._cache, spec.text, partial=spec.partial)).model
        if not _can_run(model):
            reason = model.reason or "it has no snapshot"
            raise ApiError(
                422, "model_not_runnable", f"{model.name} cannot run here: {reason}", param="model"
            )
        return model


def _told(error: OpError, spec: _Spec) -> Exception:
    """Return a fault of finding a model as a client can make use of it."""
    shown = printable(spec.text)[:120]
    if error.type is ErrorType.MODEL_NOT_FOUND:
        return ApiError(
            404,
            error.type.value,
            f"There is no model '{shown}' here. GET /v1/models lists the names.",
            param="model",
        )
    if error.type is ErrorType.VALIDATION_ERROR:
        return invalid(error_text(error), "model")
    return error


def _can_run(model: Model) -> bool:
    return model.health is Health.HEALTHY and model.runtime_compatible
