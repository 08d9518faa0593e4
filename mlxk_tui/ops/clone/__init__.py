"""Cloning a model from the cache or the hub into a folder of the user's."""
