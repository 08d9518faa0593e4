"""The built-in demo: a sample cache with real layouts and every kind of fault, in a temporary folder."""
