"""The code of the worker process, the only code that imports MLX and mlx-lm."""
