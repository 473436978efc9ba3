"""The commands: everything the screen can do, without a screen. ``main`` maps errors to text and exit codes."""

from __future__ import annotations

import sys

from engine.errors import EngineError


def main() -> None:
    """Entry point of ``wmdd-tui``. Without a word it opens the dashboard, which needs none of the commands."""
    try:
        if sys.argv[1:]:
            from wmdd_tui.cli.commands import app

            app()
        else:
            from wmdd_tui.app import run_app

            sys.exit(run_app())
    except EngineError as error:
        print(f"wmdd-tui: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`wmdd-tui runs | head`); nothing is left to say.
        sys.stderr.close()
        sys.exit(1)
