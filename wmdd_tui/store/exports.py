"""Where the dashboard writes what a user keeps: ``$WMDD_HOME/exports/<run>/``, beside the runs, never in them."""

from __future__ import annotations

from pathlib import Path

from engine import rundir
from engine.rundir import RunDir


def exports_of(run: RunDir) -> Path:
    """The folder of a run's exports, made if it is missing. Raises OSError."""
    folder = rundir.home() / "exports" / run.id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_text(run: RunDir, name: str, text: str) -> Path:
    """Write a text as ``<name>.txt``, whole, over an earlier one. Raises OSError."""
    file = exports_of(run) / f"{name}.txt"
    rundir.write_whole(file, text.encode() + b"\n")
    return file
