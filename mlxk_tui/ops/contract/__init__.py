"""The JSON contract: the models of every result, the envelope, the schema."""
