"""The models of the cache: listed, filtered, shown in detail."""
