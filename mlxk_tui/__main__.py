"""`python -m mlxk_tui`."""

import sys

from mlxk_tui.cli import main

if __name__ == "__main__":
    sys.exit(main())
