"""mlxk-tui: a full-screen terminal workbench for MLX models."""

__version__ = "0.1.0"
