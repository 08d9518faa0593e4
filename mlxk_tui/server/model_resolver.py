"""Resolves the `model` of a request: a full name or its last part, `NAME@REV`, an alias, or nothing.

Requests can't use other parts of a name. In a program such a name is a typo or belongs to another server,
and an error is better than a response by some model whose name happens to contain it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import RunnableModel, find_runnable
from mlxk_tui.engine.status import ModelStatus
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.names import parse_spec
from mlxk_tui.ops.catalog import catalog
from mlxk_tui.ops.contract.results import Health, Model
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.error_text import error_text
from mlxk_tui.server.errors import ApiError, invalid

_TTL_S = 5.0
"""Seconds for which a resolved model is reused; the cache may change at any time."""
_MAX_RESOLVED = 64


@dataclass(frozen=True)
class _Resolved:
    model: RunnableModel
    until: float


@dataclass(frozen=True)
class ServedModel:
    """A model and the id under which requests can use it."""

    id: str
    """Its full name, with the revision if the request has one, or an alias."""
    model: Model


def loaded_commit(loaded: ModelStatus) -> str:
    """Return the commit hash of the loaded model: the name of its snapshot folder."""
    return Path(loaded.folder).name


def loaded_spec(loaded: ModelStatus) -> str:
    """Return the `NAME@REV` of the loaded model, even if its repo's `main` has moved on."""
    return f"{loaded.name}@{loaded_commit(loaded)}"


@dataclass(frozen=True)
class _Spec:
    """A model to look up in the cache."""

    text: str
    """`NAME[@REV]`."""
    partial: bool
    """Whether a part of a name is enough: only in the server's options, not in requests."""


class ModelResolver:
    """Finds models in the cache. A name in a request is never used as a path and never downloaded."""

    def __init__(self, engine: Engine, cache: Cache) -> None:
        self.default: str | None = None
        """The model for requests that don't name one."""
        self.aliases: Mapping[str, str] = {}
        self.force = False
        """Whether to load models that don't fit in memory."""
        self.last_model: Callable[[], str | None] = lambda: None
        """Returns the `NAME@REV` of the model that was loaded when the engine crashed, if any."""
        self._engine = engine
        self._cache = cache
        self._resolved: OrderedDict[_Spec, _Resolved] = OrderedDict()
        self._listing: asyncio.Task[list[ServedModel]] | None = None
        self._listed_aliases: Mapping[str, str] = {}
        self._listed_until = 0.0

    async def resolve(self, name: str | None) -> RunnableModel:
        """Return the model for a request.

        Raises:
            ApiError: 400 if no model is given and there is no default; 404 if the model isn't in the cache.
            OpError: the errors of `find_runnable`, such as `ambiguous_match` (409).
        """
        spec = self._spec(name)
        resolved = self._resolved.get(spec)
        now = time.monotonic()
        if resolved is not None and resolved.until > now:
            return resolved.model
        try:
            model = await self._find(spec)
        except OpError as error:
            raise _to_client_error(error, spec) from None
        self._resolved[spec] = _Resolved(model, time.monotonic() + _TTL_S)
        self._resolved.move_to_end(spec)
        while len(self._resolved) > _MAX_RESOLVED:
            self._resolved.popitem(last=False)
        return model

    async def _find(self, spec: _Spec) -> RunnableModel:
        """Find a model. One that is too large needs `force`, unless it is the one in memory."""
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
        current = (
            loaded_spec(loaded) if loaded is not None else self.last_model() or self._engine.status.loading
        )
        if current is not None:
            return _Spec(current, partial=False)
        raise invalid(
            "The request names no model and none is loaded. GET /v1/models lists the names.", "model"
        )

    async def list_models(self) -> list[ServedModel]:
        """Return the healthy models that can run here, sorted by name, then the aliases of such models.

        Raises:
            OpError: the errors of `catalog.list_models`.
        """
        expired = self._listing is None or (self._listing.done() and time.monotonic() > self._listed_until)
        if self._listing is None or expired or self._listed_aliases != self.aliases:
            self._listed_aliases = self.aliases
            self._listing = asyncio.create_task(self._list(self.aliases))
        return await asyncio.shield(self._listing)

    async def _list(self, aliases: Mapping[str, str]) -> list[ServedModel]:
        try:
            found = (await catalog.list_models(self._cache)).models
        except BaseException:
            self._listed_until = 0.0
            raise
        runnable = {model.name: model for model in found if _can_run(model)}
        served = {name: ServedModel(name, model) for name, model in runnable.items()}
        for alias, spec in aliases.items():
            served.pop(alias, None)  # an alias hides a model of the same name
            try:
                model = runnable[spec] if spec in runnable else await self._inspect(_Spec(spec, partial=True))
            except (OpError, ApiError):  # a request for it gets the error
                continue
            served[alias] = ServedModel(alias, model)
        self._listed_until = time.monotonic() + _TTL_S / 2
        return list(served.values())

    async def get_model(self, name: str) -> ServedModel:
        """Return one model that can run here.

        Raises:
            ApiError: 404 if it isn't in the cache; 422 if it can't run here.
            OpError: the errors of `catalog.inspect_model`, such as `ambiguous_match` (409).
        """
        if not name.strip():
            raise ApiError(404, ErrorType.MODEL_NOT_FOUND.value, "The model name is blank.", param="model")
        spec = self._spec(name)
        try:
            model = await self._inspect(spec)
        except OpError as error:
            sent = _to_client_error(error, spec)
            if isinstance(sent, ApiError) and sent.status == 400:  # the name is part of the path here
                sent = ApiError(404, ErrorType.MODEL_NOT_FOUND.value, sent.message, param="model")
            raise sent from None
        if name in self.aliases:
            return ServedModel(name, model)
        revision = parse_spec(name).revision
        return ServedModel(model.name if revision is None else f"{model.name}@{revision}", model)

    async def _inspect(self, spec: _Spec) -> Model:
        model = (await catalog.inspect_model(self._cache, spec.text, partial=spec.partial)).model
        if not _can_run(model):
            reason = model.reason or "it has no snapshot"
            raise ApiError(422, "model_not_runnable", f"{model.name} can't run here: {reason}", param="model")
        return model


def _to_client_error(error: OpError, spec: _Spec) -> Exception:
    """Return an error of the lookup in terms of the request."""
    name = printable(spec.text)[:120]
    if error.type is ErrorType.MODEL_NOT_FOUND:
        return ApiError(
            404,
            error.type.value,
            f"Model '{name}' not found. GET /v1/models lists the names.",
            param="model",
        )
    if error.type is ErrorType.VALIDATION_ERROR:
        return invalid(error_text(error), "model")
    return error


def _can_run(model: Model) -> bool:
    return model.health is Health.HEALTHY and model.runtime_compatible
