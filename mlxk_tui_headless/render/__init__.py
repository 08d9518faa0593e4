"""Human-readable output of every result, rendered from the envelope alone."""
