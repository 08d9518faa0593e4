"""The asynchronous operations on models that both front ends share; no screen code."""
