"""``python -m wmdd_tui``."""

from wmdd_tui.cli import main

main()
