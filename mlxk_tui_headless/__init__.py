"""The `mlxk-headless` command: the operations of mlxk_tui.ops for scripts, CI and agents."""
