"""Pausing, stopping, killing and resuming a run from any screen."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import EngineError
from engine.rundir import ALIVE, RESUMABLE, RunDir, kill, state_of
from wmdd_tui.screens.base import ActionScreen
from wmdd_tui.screens.confirm import Confirm


def toggle_pause(screen: ActionScreen, run: RunDir) -> None:
    """Ask a running run to pause, a paused one to go on."""
    state = state_of(run)
    try:
        if state not in ALIVE:
            screen.say(f"{run.id} is {state}: there is nothing to pause", bad=True)
        elif state == "paused":
            run.request("unpause")
            screen.say(f"{run.id} goes on")
        else:
            run.request("pause")
            when = "lets others pass in its queue" if state == "queued" else "pauses after this iteration"
            screen.say(f"{run.id} {when}")
    except EngineError as error:
        screen.say(str(error), bad=True)


def resume(screen: ActionScreen, run: RunDir, queue: bool = False) -> bool:
    """Continue a run that was stopped, failed or crashed; returns whether it goes on."""
    state = state_of(run)
    if state not in RESUMABLE:
        screen.say(f"{run.id} is {state}: there is nothing to resume", bad=True)
        return False
    try:
        screen.cockpit.resume(run, queue)
    except EngineError as error:
        screen.say(str(error), bad=True)
        return False
    screen.say(f"{run.id} goes on" + (" when its device is free" if queue else ""))
    return True


def ask_stop(screen: ActionScreen, run: RunDir, asked_before: bool, on_asked: Callable[[], None]) -> None:
    """Confirm, then stop; a run that was asked before may be killed instead."""
    state = state_of(run)
    if state not in ALIVE:
        screen.say(f"{run.id} is {state} already", bad=True)
        return

    def answered(yes: bool | None) -> None:
        if not yes:
            return
        try:
            if asked_before:
                killed = kill(run)
                screen.say(f"{run.id}: killed" if killed else f"{run.id}: its process was not found", bad=not killed)
            else:
                run.request("stop")
                on_asked()
                done = "leaves the queue" if state == "queued" else "stops after this iteration"
                screen.say(f"{run.id} {done}; stop again to kill it")
        except EngineError as error:
            screen.say(str(error), bad=True)

    if asked_before:
        question = f"{run.id} was asked to stop. Kill it now? Work since the last checkpoint is lost."
    elif state == "queued":
        question = f"Take {run.id} out of the queue? It has not begun its turn; resume puts it back to work."
    else:
        question = f"Stop {run.id}? It finishes its iteration and writes a checkpoint; resume goes on from there."
    screen.app.push_screen(
        Confirm(question, "Kill" if asked_before else "Remove" if state == "queued" else "Stop"), answered
    )
