"""What the local hub has: repos, files, users."""
