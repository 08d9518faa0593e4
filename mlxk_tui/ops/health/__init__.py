"""Health of models: integrity, weights, compatibility with this machine, cached verdicts."""
