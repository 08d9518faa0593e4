"""Programs that inspect parts of the worker with MLX; the tests run them as separate processes."""

from mlxk_tui.engine.inference.transformers_import import speed_up_transformers_import

speed_up_transformers_import()
