"""The JSON contract: models of all results, the envelope, the schema."""
