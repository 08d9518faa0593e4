"""Prepares requests: chat templates, tokenization, grammars."""
