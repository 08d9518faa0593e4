"""Downloads the files of a commit into the cache: ranges, connections, partial blobs, checksums."""
