"""Runs a user has pinned to the top of the list: ``$WMDD_HOME/pins.json``, a list of ids."""

from __future__ import annotations

import json
from collections.abc import Collection

from engine import rundir


def read_pins() -> set[str]:
    """Ids of pinned runs; empty where the file is missing or damaged."""
    try:
        value = json.loads((rundir.home() / "pins.json").read_bytes())
    except (OSError, ValueError):
        return set()
    return {one for one in value if isinstance(one, str)} if isinstance(value, list) else set()


def write_pins(ids: Collection[str]) -> None:
    """Keep the ids of pinned runs. Raises OSError."""
    rundir.home().mkdir(parents=True, exist_ok=True)
    rundir.write_whole(rundir.home() / "pins.json", json.dumps(sorted(ids)).encode())
