"""Pulls a model: compares the commit with the cache, then downloads what is missing."""
