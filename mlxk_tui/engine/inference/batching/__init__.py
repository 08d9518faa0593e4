"""Whether several requests of a model may be decoded as one batch: tried once, then remembered."""
