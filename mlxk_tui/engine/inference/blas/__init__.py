"""Fast matrix products for MLX's CPU build: tests a BLAS library in a subprocess and binds it into libmlx."""
