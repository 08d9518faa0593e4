"""Request schemas shared by the APIs, and their conversion to generations of the engine."""
