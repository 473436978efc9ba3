"""Opening the large screens. They bring numpy and pydantic, which the first screen must not wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.config import RunConfig
    from engine.rundir import RunDir
    from wmdd_tui.screens.compare import CompareScreen
    from wmdd_tui.screens.monitor import MonitorScreen
    from wmdd_tui.screens.new_run import NewRunScreen
    from wmdd_tui.store.ahead import Ahead


def monitor(run: RunDir, ahead: Ahead | None = None) -> MonitorScreen:
    """The monitor of a run, which a process may have begun to read."""
    from wmdd_tui.screens.monitor import MonitorScreen

    return MonitorScreen(run, ahead)


def new_run(preset: str | None = None, config: RunConfig | None = None) -> NewRunScreen:
    """The form, filled from a preset or a configuration."""
    from wmdd_tui.screens.new_run import NewRunScreen

    return NewRunScreen(preset, config)


def comparison(runs: Sequence[RunDir]) -> CompareScreen:
    """Runs beside each other."""
    from wmdd_tui.screens.compare import CompareScreen

    return CompareScreen(list(runs))


def load() -> None:
    """Import what these screens need, so that the first one opens at once."""
    import wmdd_tui.screens.compare
    import wmdd_tui.screens.exporting
    import wmdd_tui.screens.monitor
    import wmdd_tui.screens.new_run  # noqa: F401  (loading them is all that is wanted)
