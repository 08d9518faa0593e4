"""Removes models and revisions, and prunes unneeded files."""
