"""Pushing a folder: what would change, then the upload."""
