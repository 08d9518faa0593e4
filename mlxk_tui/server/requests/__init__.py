"""What the requests of every API family share: their schemas, and what they ask of the engine."""
