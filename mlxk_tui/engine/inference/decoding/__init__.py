"""Prefill and decode steps of running generations: KV caches, batches, sampling."""
