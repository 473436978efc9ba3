"""The state of a run, derived from its lock, its heartbeat and its last event; nothing of it is stored."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.errors import EngineError
from engine.rundir.heartbeat import read_tail
from engine.rundir.lock import STALL_SECONDS, lock_held
from engine.rundir.paths import RunDir, list_runs

if TYPE_CHECKING:
    from engine.config import RunConfig

State = Literal[
    "queued", "starting", "running", "paused", "stalled", "stopped", "finished", "failed", "crashed", "remote"
]
ALIVE: frozenset[str] = frozenset({"queued", "starting", "running", "paused", "stalled", "remote"})
#: States from which a run can go on.
RESUMABLE: frozenset[str] = frozenset({"stopped", "failed", "crashed"})
START_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Signs:
    """What a run's state is derived from."""

    lock: bool | None
    same_host: bool
    started: bool
    end: str
    beat_age: float
    paused: bool
    config_age: float
    queued: bool = False


def derive_state(signs: Signs) -> State:
    """The state of a run. ``end`` is the status of the last process's ``end`` event, "" while it has none."""
    if not signs.started:
        return "starting" if signs.config_age < START_GRACE_SECONDS or signs.lock else "crashed"
    if signs.end == "finished":
        return "finished"
    if signs.end in ("stopped", "failed"):
        return "stopped" if signs.end == "stopped" else "failed"
    if signs.lock is False and signs.same_host:
        return "crashed"
    if signs.beat_age > STALL_SECONDS:
        return "stalled" if signs.lock else "crashed"
    if not signs.same_host:
        return "remote"
    if signs.paused:
        return "paused"
    return "queued" if signs.queued else "running"


def read_signs(run: RunDir, now: float | None = None) -> Signs:
    """Gather the signs of a run from its files; reads only the tail of the event file."""
    now = time.time() if now is None else now
    facts = run.process()
    tail = read_tail(run.events_file)
    same_host = facts is None or facts.get("host") == socket.gethostname()
    age = now - tail.last
    try:
        config_age = now - run.config_file.stat().st_mtime
    except OSError:
        config_age = float("inf")
    return Signs(
        lock=lock_held(run),
        same_host=same_host,
        started=tail.started,
        end=tail.end,
        # A beat from the future: on this host the clock was set back, and a live engine beats again in a moment;
        # on another host the clocks merely differ.
        beat_age=(abs(age) if same_host else max(0.0, age)) if tail.last else float("inf"),
        paused=tail.paused,
        config_age=config_age,
        queued=tail.queued,
    )


def state_of(run: RunDir) -> State:
    """The state of a run as its files tell it now."""
    return derive_state(read_signs(run))


def unfinished(settings: RunConfig, root: Path | None = None) -> RunDir | None:
    """The newest run that began with exactly this configuration, unless it is finished or there is none."""
    for run in list_runs(root):
        try:
            if not run.config().began_as(settings):
                continue
        except EngineError:
            continue
        return None if state_of(run) == "finished" else run
    return None
