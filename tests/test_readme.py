"""The README is up to date."""

from __future__ import annotations

import re
from pathlib import Path

from mlxk_tui.settings import reference

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_settings_table_is_up_to_date() -> None:
    assert reference() in README


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
