"""schemathesis tests the server with its OpenAPI document."""

from __future__ import annotations

import re

import pytest

from tests.clients.conftest import RunProgram
from tests.engine.conftest import needs_mlx
from tests.server.served import Served

pytestmark = [needs_mlx, pytest.mark.clients]

SECONDS = 60


def test_server_conforms_to_its_openapi_document(served: Served, run_program: RunProgram) -> None:
    served.chat("Load the model.", max_tokens=1)
    done = run_program(
        "schemathesis",
        *("-m", "schemathesis.cli", "run", f"{served.address.url}/openapi.json"),
        *("--phases", "coverage,fuzzing", "--max-time", str(SECONDS), "--workers", "2"),
        # A schema cannot express every reason for a rejection: a last message that is not the user's, a tool
        # that is not in the list of tools, a grammar that does not compile.
        *("--exclude-checks", "positive_data_acceptance", "--continue-on-failure", "--warnings", "off"),
        *("--request-timeout", "60", "--seed", "1", "--no-color"),
        check=False,
    )
    # This error is schemathesis's own: it generates deep values by recursion.
    assert not re.search(r"\d+ failures? ", done.stdout), done.stdout[-6000:]
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases is not None
    assert int(cases[1]) > 100
    served.still_well()
