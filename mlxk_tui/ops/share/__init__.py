"""Shares the cache: which repos and files other machines may read, and `models.lock`."""
