"""Whether a model is intact and will run here: integrity, weights, compatibility, verdicts."""
