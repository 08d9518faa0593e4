"""The Hugging Face cache on disk: repos, refs, snapshots, blobs, names, locks."""
