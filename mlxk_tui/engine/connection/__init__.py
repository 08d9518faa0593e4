"""The parent's side of the worker process: starting, messages, liveness checks, shutdown."""
