"""The matrix library that MLX's CPU build can borrow on Linux: found, tried once, remembered.

MLX's wheel for Linux multiplies matrices with netlib's reference BLAS, twenty times slower than what a
tuned library does. Here is what needs no MLX: which libraries there are, what a trial found out about
them, and how many cores they may use. `mlxk_tui.engine.inference.blas` tries and loads them.
"""
