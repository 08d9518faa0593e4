"""Settings of the server's fuzz tests: reproducible, unless the number of requests is large."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_CASES = int(os.environ.get("MLXK2_FUZZ_CASES", "0"))
"""Requests of each fuzz test; 1,000 make the long run. 0: as many as the test says."""


def fuzz(cases: int) -> settings:
    """Return the decorator of a fuzz test.

    Args:
        cases: number of requests if `MLXK2_FUZZ_CASES` is not set.
    """
    count = _CASES or cases
    return settings(
        max_examples=count,
        derandomize=count < 1000,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
