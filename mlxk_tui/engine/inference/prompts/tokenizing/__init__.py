"""Processes that render chat templates and tokenize, with the tokenizer but without weights or MLX."""
