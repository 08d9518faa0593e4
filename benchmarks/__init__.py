"""Benchmarks. Each prints medians, and ratios to a named peer measured in the same run."""
