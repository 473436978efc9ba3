"""The commands: everything the screen can do, without a screen. ``main`` maps errors to text and exit codes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from engine.errors import EngineError


def main() -> None:
    """Entry point of ``wmdd-tui``. Without a word it opens the dashboard, which needs none of the commands."""
    try:
        sys.exit(_imported()())
    except EngineError as error:
        print(f"wmdd-tui: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`wmdd-tui runs | head`); nothing is left to say.
        sys.stderr.close()
        sys.exit(1)


def _imported() -> Callable[[], int | None]:
    """What is to be started. Its modules live to the end, so looking for rubbish among them would only take time."""
    gc.disable()
    try:
        if sys.argv[1:2] == ["attach"]:
            from wmdd_tui.cli import opening

            return opening.app
        if sys.argv[1:]:
            from wmdd_tui.cli.commands import app

            return app
        from wmdd_tui.app import run_app

        return run_app
    finally:
        gc.freeze()
        gc.enable()
