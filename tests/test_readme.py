"""The README says what is true now."""

from __future__ import annotations

import re
from pathlib import Path

from mlxk_tui.settings import reference

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_is_the_one_of_the_program() -> None:
    assert reference() in README


def test_every_linked_file_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
