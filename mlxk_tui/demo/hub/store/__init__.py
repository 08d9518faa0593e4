"""The data of the local hub: repos, files, users."""
