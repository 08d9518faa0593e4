"""Tests once per model whether its requests can be decoded as one batch, and stores the verdict."""
