"""Programs that look into the worker's parts with MLX; the tests run them as processes of their own."""
