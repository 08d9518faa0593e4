"""Clones a model from the cache or the hub into a user's folder."""
