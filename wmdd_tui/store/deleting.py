"""Deleting a run: its directory, and what the dashboard keeps of it. Exports are the user's and stay."""

from __future__ import annotations

import shutil

from engine import rundir
from engine.errors import RunDirError, RunFailure
from engine.rundir import ALIVE, RunDir
from wmdd_tui.store import embedded


def refuse_alive(run: RunDir) -> None:
    """Raises RunDirError where a run is alive, for then it must be stopped first."""
    state = rundir.state_of(run)
    if state in ALIVE:
        raise RunDirError(f"run {run.id} is {state}", f"stop it first: wmdd-tui stop {run.id}")


def delete(run: RunDir) -> None:
    """Delete a run that is not alive. Raises RunDirError (it is), RunFailure (its files cannot be removed)."""
    refuse_alive(run)
    try:
        shutil.rmtree(run.path)
    except OSError as error:
        raise RunFailure(
            f"cannot delete {error.filename or run.path}: {error.strerror}", "check who owns the directory"
        ) from None
    embedded.forget(run)
