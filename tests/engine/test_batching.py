"""The batching trial: it runs at the first load, is stored, and survives a crash."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import GenerationRequest
from mlxk_tui.engine.memory import WeightsPolicy
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.engine.status import ModelStatus
from mlxk_tui.ops.contract.terms import BatchingReason, CpuWeights
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.events import Progress
from mlxk_tui.ops.health.batching_verdicts import FOLDER_VARIABLE
from tests.engine.conftest import GREEDY, executable, needs_mlx, new_engine, run, worker_environment
from tests.engine.small_models import make_model
from tests.families.table import config_of

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]


class Home:
    """Engines with a separate folder of verdicts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: list[str] = []
        self._engines: list[Engine] = []

    def engine(self, variables: Mapping[str, str] | None = None, **options: Any) -> Engine:
        """Return an engine that uses the folder's verdicts."""
        environ = worker_environment(**{FOLDER_VARIABLE: str(self.folder)}, **(variables or {}))
        self._engines.append(new_engine(environ=environ, **options))
        return self._engines[-1]

    async def load(self, model: RunnableModel, engine: Engine | None = None, **options: Any) -> ModelStatus:
        """Load the model in a new engine, and record the stages."""
        self.stages.clear()
        if engine is None:
            engine = self._engines[0] if self._engines and not options else self.engine(**options)
        await engine.unload()
        return await engine.load(model, on_event=lambda event: self.stages.append(_stage(event)))

    async def stop(self) -> None:
        for engine in self._engines:
            await engine.stop()

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]


def _stage(event: object) -> str:
    return event.stage if isinstance(event, Progress) else ""


@pytest_asyncio.fixture(loop_scope="package")
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    home = Home(tmp_path / "batching")
    yield home
    await home.stop()


@pytest.fixture(scope="module")
def afm7(tmp_path_factory: pytest.TempPathFactory) -> RunnableModel:
    """Return a model whose architecture mlx-lm batches wrongly."""
    folder = tmp_path_factory.mktemp("afm7") / "m"
    job = {"config": config_of("afm7"), "prompts": {"a": list(range(7, 16))}, "max_tokens": 8}
    subprocess.run(
        [executable(), "-m", "tests.families.making", str(folder)],
        input=json.dumps(job),
        env=worker_environment(),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return RunnableModel("test/afm7", folder)


@pytest.mark.slow
async def test_model_is_tried_once_and_then_batched(home: Home, babbler: RunnableModel) -> None:
    first = await home.load(babbler)
    assert "batching" in home.stages
    assert (first.batched, first.unbatched_reason) == (True, None)
    again = await home.load(babbler)
    assert "batching" not in home.stages
    assert (again.batched, again.unbatched_reason) == (True, None)
    assert [verdict["together"] for verdict in home.verdicts] == [True]


@pytest.mark.slow
async def test_model_batched_wrongly_by_mlx_lm_is_served_in_turn(home: Home, afm7: RunnableModel) -> None:
    engine = home.engine()
    loaded = await home.load(afm7, engine)
    assert not loaded.batched
    assert loaded.unbatched_reason in {BatchingReason.DIFFERENT, BatchingReason.FAILED}  # mlx-lm 0.31 raises
    prompts = [tuple(range(7, 7 + length)) for length in (4, 30, 11)]
    requests = [
        GenerationRequest(tokens=prompt, sampling=GREEDY, max_tokens=12, return_token_ids=True)
        for prompt in prompts
    ]
    together = await asyncio.gather(*(run(engine, afm7, request) for request in requests))
    await engine.unload()
    alone = [await run(engine, afm7, request) for request in requests]
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    again = await home.load(afm7)
    assert again.unbatched_reason is loaded.unbatched_reason
    assert "batching" not in home.stages


async def test_engine_without_batching_runs_no_trial(home: Home, babbler: RunnableModel) -> None:
    loaded = await home.load(babbler, batching=False)
    assert "batching" not in home.stages
    assert (loaded.batched, loaded.unbatched_reason) == (False, None)
    assert home.verdicts == []


@pytest.mark.slow
async def test_crash_in_the_trial_disables_batching_and_the_load_continues(
    home: Home, tmp_path: Path
) -> None:
    for attempt in range(20):  # the trial may be over before the signal comes
        model = RunnableModel(
            "test/crashing", make_model(tmp_path / str(attempt), hidden=512, layers=8 + attempt)
        )
        engine = home.engine()
        died: list[int] = []

        def crash(event: object, engine: Engine = engine, died: list[int] = died) -> None:
            home.stages.append(_stage(event))
            pid = engine.status.pid
            if _stage(event) == "batching" and not died and pid is not None:
                died.append(pid)
                os.kill(pid, signal.SIGSEGV)

        home.stages.clear()
        try:
            loaded = await engine.load(model, on_event=crash)
        except OpError:
            continue  # it died after its answer
        if loaded.unbatched_reason is not None:
            break
    assert (loaded.batched, loaded.unbatched_reason) == (False, BatchingReason.CRASHED)
    assert home.stages.count("start") == 2
    assert engine.status.pid not in (None, *died)
    assert engine.status.last_error is None
    again = await home.load(model)
    assert again.unbatched_reason is BatchingReason.CRASHED
    assert "batching" not in home.stages


@pytest.mark.slow
async def test_unfinished_trial_is_repeated_once(home: Home, babbler: RunnableModel) -> None:
    await home.load(babbler)
    (known,) = home.folder.glob("*.json")
    key = known.stem
    for expected in (BatchingReason.UNFINISHED, None, BatchingReason.UNFINISHED, BatchingReason.CRASHED):
        if expected is not None:
            if expected is BatchingReason.UNFINISHED:
                known.unlink(missing_ok=True)
            (home.folder / f"{key}.1-dead.trying").touch()
        loaded = await home.load(babbler)
        assert loaded.unbatched_reason is expected
        assert ("batching" in home.stages) is (expected is None)
    assert not list(home.folder.glob("*.trying"))


@pytest.mark.slow
async def test_load_cancelled_during_the_trial_stores_nothing(home: Home, tmp_path: Path) -> None:
    engine = home.engine()
    model = RunnableModel("test/slow", make_model(tmp_path / "m", hidden=512, layers=8))
    reached = asyncio.Event()

    def tell(event: object) -> None:
        if _stage(event) == "batching":
            reached.set()

    loading = asyncio.create_task(engine.load(model, on_event=tell))
    await reached.wait()
    loading.cancel()
    await asyncio.wait([loading])
    await engine.stop()
    assert not list(home.folder.glob("*.trying"))
    loaded = await home.load(model, home.engine())
    assert loaded.batched


async def test_verdicts_that_cannot_be_stored_are_computed_each_time(
    home: Home, babbler: RunnableModel
) -> None:
    home.folder.write_text("in the way")
    for _ in range(2):
        loaded = await home.load(babbler)
        assert loaded.batched
        assert "batching" in home.stages


@pytest.mark.slow
async def test_other_kernels_need_a_new_trial(home: Home, babbler: RunnableModel) -> None:
    copies, stored = (WeightsPolicy(kind) for kind in (CpuWeights.FLOAT32, CpuWeights.STORED))
    engines = [
        home.engine(weights=copies),
        home.engine(weights=stored),
        home.engine(weights=copies, variables={"MLXK_BLAS": "off"}),
    ]
    ways = set()
    for engine in engines:
        loaded = await home.load(babbler, engine)
        blas = engine.status.blas
        way = (loaded.weights, blas.library if blas is not None else None)
        assert ("batching" in home.stages) is (way not in ways), way
        ways.add(way)
        await home.load(babbler, engine)
        assert "batching" not in home.stages
    assert len(home.verdicts) == len(ways)
