"""Routes about the server itself: health, metrics, model unloading, the OpenAPI document."""
