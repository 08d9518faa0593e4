"""Commands that listen until a signal: the API server, and the share of a cache."""
