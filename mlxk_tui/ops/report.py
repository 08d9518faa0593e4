"""What is known of one cached repo, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass

from mlxk_tui.ops.cache import RepoRef
from mlxk_tui.ops.contract import Finding, Model
from mlxk_tui.ops.detect import Facts


@dataclass(frozen=True)
class Report:
    """The verdict on one repo at its selected snapshot."""

    ref: RepoRef
    model: Model
    findings: tuple[Finding, ...]
    """Integrity first, then what keeps it from running; errors before warnings in each."""
    facts: Facts
