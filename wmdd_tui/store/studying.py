"""Carrying out a study: its runs one after another or several at once, each an engine of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine import config, rundir
from engine.rundir import RunDir
from wmdd_tui.store.launch import launch
from wmdd_tui.store.study import Found, Trial, find_runs

POLL_SECONDS = 0.5
#: An engine that was asked to stop gets so long before the study goes without it; it ends by itself.
STOP_SECONDS = 120.0

Say = Callable[[str], None]


@dataclass
class Slot:
    """A place for one run at a time, on one device ("" leaves it to the configuration)."""

    device: str = ""
    trial: Trial | None = None
    run: RunDir | None = None
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Ended:
    """How a study's work ended: all done, or why there is more to do."""

    failed: list[RunDir] = field(default_factory=list)
    stopped: bool = False


def carry_out(
    trials: Sequence[Trial],
    slots: Sequence[Slot],
    say: Say,
    stop_asked: Callable[[], bool],
    retry_failed: bool = False,
    since: float = 0.0,
) -> Ended:
    """Run every trial that has no finished run; broken-off runs are resumed, live ones of others are waited for.

    Ends when all are done, or, once ``stop_asked``, when the engines have ended after a checkpoint. A failed run is
    left as it is unless ``retry_failed``. Runs made before ``since`` do not count. Raises EngineError.
    """
    ended = Ended()
    waiting = [one for one in find_runs(trials, since=since) if one.state != "finished"]
    if not retry_failed:
        ended.failed = [one.run for one in waiting if one.run is not None and one.state == "failed"]
        waiting = [one for one in waiting if one.state != "failed"]
    total, done = len(trials), len(trials) - len(waiting) - len(ended.failed)
    while waiting or any(slot.run for slot in slots):
        if stop_asked():
            _stop(slots, say)
            ended.stopped = True
            return ended
        for slot in slots:
            if slot.run is not None and _is_over(slot):
                state = rundir.state_of(slot.run)
                done += state == "finished"
                say(f"[{done}/{total}] {slot.run.id}: {state}")
                if state != "finished":
                    ended.failed.append(slot.run)
                slot.trial = slot.run = slot.process = None
            if slot.run is None and waiting:
                _begin(slot, waiting.pop(0), say)
        time.sleep(POLL_SECONDS)
    return ended


def _is_over(slot: Slot) -> bool:
    if slot.process is not None:
        return slot.process.poll() is not None
    return slot.run is not None and rundir.state_of(slot.run) not in rundir.ALIVE


def _begin(slot: Slot, found: Found, say: Say) -> None:
    """Adopt, resume or start the trial's run."""
    slot.trial, slot.run = found.trial, found.run
    if slot.run is None:
        settings = found.trial.settings
        if slot.device:
            settings = config.override(settings, [f"run.device={slot.device}"])
        slot.run = rundir.create(settings)
    elif found.state in rundir.ALIVE:
        say(f"{slot.run.id}: {found.state} already, waited for")
        return
    say(f"{slot.run.id}: {'started' if found.run is None else 'resumed'} ({found.trial.row}, seed {found.trial.seed})")
    slot.process = launch(slot.run)


def _stop(slots: Sequence[Slot], say: Say) -> None:
    """Ask the engines started here to stop, and wait for them."""
    own = [slot for slot in slots if slot.process is not None and slot.run is not None]
    for slot in own:
        if slot.run is not None:
            slot.run.request("stop")
    deadline = time.monotonic() + STOP_SECONDS
    for slot in own:
        if slot.process is None or slot.run is None:
            continue
        try:
            slot.process.wait(max(0.1, deadline - time.monotonic()))
            say(f"{slot.run.id}: {rundir.state_of(slot.run)}")
        except subprocess.TimeoutExpired:
            say(f"{slot.run.id}: asked to stop, still at work; it ends after its next checkpoint")
