"""Files of one commit into the cache: ranges, connections, partial blobs, checksums."""
