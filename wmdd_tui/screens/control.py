"""Pausing, stopping and killing a run from any screen, each through the run directory."""

from __future__ import annotations

from collections.abc import Callable

from engine.errors import EngineError
from engine.rundir import ALIVE, RunDir, kill, state_of
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
            screen.say(f"{run.id} pauses after this iteration")
    except EngineError as error:
        screen.say(str(error), bad=True)


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
                done = kill(run)
                screen.say(f"{run.id}: killed" if done else f"{run.id}: its process was not found", bad=not done)
            else:
                run.request("stop")
                on_asked()
                screen.say(f"{run.id} stops after this iteration; stop again to kill it")
        except EngineError as error:
            screen.say(str(error), bad=True)

    if asked_before:
        question = f"{run.id} was asked to stop. Kill it now? Work since the last checkpoint is lost."
    else:
        question = f"Stop {run.id}? It finishes its iteration and writes a checkpoint; resume goes on from there."
    screen.app.push_screen(Confirm(question, "Kill" if asked_before else "Stop"), answered)
