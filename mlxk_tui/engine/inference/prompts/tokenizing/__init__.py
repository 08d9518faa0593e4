"""Processes that render chat templates and tokenize: the tokenizer alone, no weights, no MLX."""
