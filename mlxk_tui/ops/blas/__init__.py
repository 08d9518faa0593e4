"""BLAS libraries that MLX's CPU build can use on Linux: found, tried once, recorded.

MLX's wheel for Linux multiplies matrices with netlib's reference BLAS, which is twenty times slower than an
optimized library. This package contains the parts that need no MLX: finding libraries, recording trials, and
limiting threads. `mlxk_tui.engine.inference.blas` tries and loads the libraries.
"""
