"""Asking a model at the terminal: one answer, or a conversation."""
