"""What is said to someone who leaves the dashboard."""

from __future__ import annotations

from engine.rundir import ALIVE, RunDir, list_runs, lock_held, state_of


def farewell(watched: RunDir | None) -> str:
    """Which runs go on, and how to come back; nothing where none does."""
    mine = None if watched is None else watched.path
    # A run that was just started holds no lock before its engine is up.
    alive = [run for run in list_runs() if lock_held(run) or (run.path == mine and state_of(run) in ALIVE)]
    if not alive:
        return ""
    back = next((run for run in alive if run.path == mine), alive[0])
    count = "1 run goes" if len(alive) == 1 else f"{len(alive)} runs go"
    return f"{count} on without the dashboard. Come back with:\n  wmdd-tui attach {back.id}\n"
