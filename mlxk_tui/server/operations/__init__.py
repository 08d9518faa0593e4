"""Routes about the server itself: health, metrics, its OpenAPI document."""
