"""The inference engine: a worker process that runs MLX, and its async client, which does not."""
