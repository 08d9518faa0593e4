"""Makes a worker hang for real at a place in MLX or Python; for `test_hangs.py`.

Python imports this module automatically if PYTHONPATH contains its folder. FAULT_FOLDER contains a file with
the name of each place that should hang, whose content is the kind of hang; `held` is written there once it
hangs.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(os.environ["FAULT_FOLDER"])


def get_stuck(place: str) -> None:
    """Hang if a file requests it."""
    try:
        how = (FOLDER / place).read_text()
    except OSError:
        return
    (FOLDER / "held").write_text(place)
    if how == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    elif how == "interpreter":
        ctypes.PyDLL(None).sleep(10**6)  # without releasing the interpreter lock
    elif how == "spin":
        collections.deque(itertools.repeat(0), maxlen=0)  # the same, and keeps a core busy


def stuck_first(function: Callable[..., Any], place: str) -> Callable[..., Any]:
    """Return a function that hangs before it calls the original."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        get_stuck(place)
        return function(*args, **kwargs)

    return wrapped


def _change(module: ModuleType) -> None:
    if module.__name__ == "transformers":
        get_stuck("importing")
    elif module.__name__ == "mlx_lm.utils":
        get_stuck("starting")
        module.load_tokenizer = stuck_first(module.load_tokenizer, "loading")  # type: ignore[attr-defined]  # a patch
    elif module.__name__ == "mlx_lm.models.llama":
        inner = module.LlamaModel
        inner.__call__ = stuck_first(inner.__call__, "step")


class _Finder(importlib.abc.MetaPathFinder):
    """Patches a module right after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in {"transformers", "mlx_lm.utils", "mlx_lm.models.llama"}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        loader = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _change(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]  # a patch
        return spec


sys.meta_path.insert(0, _Finder())
gc.collect = stuck_first(gc.collect, "unloading")  # the engine's last step before it reports that it is done
