"""Programs that inspect parts of the worker with MLX; the tests run them as separate processes."""

from mlxk_tui.engine.inference.quick_transformers import read_sources_once

read_sources_once()
