"""Removing models and revisions, and pruning what nothing needs."""
