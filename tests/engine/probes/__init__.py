"""Programs that look into the worker's parts with MLX; the tests run them as processes of their own."""

from mlxk_tui.engine.inference.quick_transformers import read_sources_once

read_sources_once()
