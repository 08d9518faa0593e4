"""transformers finds the same in its source, but reads each file only once."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.engine.conftest import executable, needs_mlx

pytestmark = [needs_mlx, pytest.mark.slow]

PROGRAM = """
import collections, json, sys
opened = collections.Counter()
sys.addaudithook(lambda event, args: opened.update([args[0]]) if event == "open" else None)
from mlxk_tui.engine.inference.transformers_import import speed_up_transformers_import
speed_up_transformers_import()
import transformers
from transformers import AutoTokenizer
from transformers.utils import import_utils
models = [str(name) for name in opened if "/transformers/models/" in str(name) and str(name).endswith(".py")]
readings = sum(opened[name] for name in models)
found = import_utils.define_import_structure(transformers.__path__[0] + "/models", prefix="models")
del sys.modules["transformers.utils.import_utils"]
import importlib
own = importlib.import_module("transformers.utils.import_utils")
wanted = own.define_import_structure(transformers.__path__[0] + "/models", prefix="models")
print(json.dumps({"models": len(models), "readings": readings, "same": found == wanted, "names": len(wanted),
                  "changed": own.fetch__all__ is not import_utils.fetch__all__}))
"""


def test_transformers_import_reads_half_the_source_with_the_same_result() -> None:
    done = subprocess.run([executable(), "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["changed"]
    assert said["same"]
    assert said["models"] > 1000
    assert said["readings"] < 1.2 * said["models"]  # later imports may be compiled
    assert said["names"] > 1
