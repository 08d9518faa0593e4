"""Steps of running generations: caches, batches, sampling, log-probabilities."""
