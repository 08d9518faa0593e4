"""The built-in sample: a cache with real layouts and every kind of fault, made in a temporary folder."""
