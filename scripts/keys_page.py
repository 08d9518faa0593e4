"""Write docs/keys.md from the key bindings: `.venv/bin/python scripts/keys_page.py > docs/keys.md`."""

from __future__ import annotations

import sys

from mlxk_tui.app import MlxkApp
from mlxk_tui.ui.shell.keys import document

if __name__ == "__main__":
    sys.stdout.write(document(MlxkApp))
