"""The request handlers of the local hub."""
