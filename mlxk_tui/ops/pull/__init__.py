"""Pulling a model: what is there, what is missing, then the transfer."""
