"""The models in the cache: listing, filtering, details."""
