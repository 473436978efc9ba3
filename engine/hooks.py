"""Commands a user wants executed when a run ends or stalls: ``run.on_end`` and ``run.on_stall``.

The command is split as a shell would split it but no shell runs it; the facts stand in environment variables. A
command that fails is said in the log and never disturbs the run.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Mapping

from engine import events
from engine.config import RunConfig
from engine.rundir import RunDir

HOOK_SECONDS = 30.0
LOOK_SECONDS = 1.0
#: Events that show that the computation goes on; heartbeats and memory figures do not.
SIGNS_OF_WORK = (events.Hello, events.Stage, events.Progress, events.Iters, events.Metrics, events.Image)


def facts_of(run: RunDir, config: RunConfig, state: str, **more: str) -> dict[str, str]:
    """The environment variables of a hook; further facts become ``WMDD_<NAME>``."""
    facts = {
        "WMDD_RUN_ID": run.id,
        "WMDD_RUN_DIR": str(run.path),
        "WMDD_RUN_NAME": config.name,
        "WMDD_STATE": state,
    }
    return facts | {f"WMDD_{name.upper()}": value for name, value in more.items()}


def execute(command: str, facts: Mapping[str, str]) -> str:
    """Run a command to its end; returns what went wrong, or an empty text. Raises nothing."""
    try:
        done = subprocess.run(
            shlex.split(command),
            env={**os.environ, **facts},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=HOOK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"'{command}' did not end within {HOOK_SECONDS:.0f} s"
    except (OSError, ValueError) as error:
        return f"'{command}' cannot be run: {error}"
    if done.returncode == 0:
        return ""
    last = (done.stdout.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
    return f"'{command}' exited with {done.returncode}: {last}"


def call(name: str, command: str, facts: Mapping[str, str], emit: Callable[[events.Event], None]) -> None:
    """Execute a hook if there is one, on the first rank only; a failure becomes a line of the log."""
    if not command or os.environ.get("RANK", "0") != "0":
        return
    problem = execute(command, facts)
    if problem:
        emit(events.Log(message=f"run.{name}: {problem}", level="warning"))


class Quiet:
    """Tells, once for each silence, that nothing was finished for a number of seconds. Times are given, not read."""

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._worked = now
        self._told = False

    def note(self, event: events.Event, now: float) -> None:
        """Take note of an event; signs of work end a silence."""
        if isinstance(event, SIGNS_OF_WORK):
            self._worked, self._told = now, False

    def due(self, now: float, paused: bool) -> bool:
        """True when a silence has just become too long. A pause is no silence."""
        if paused:
            self._worked, self._told = now, False
        if self._told or now - self._worked < self._seconds:
            return False
        self._told = True
        return True


class StallWatch(threading.Thread):
    """Stands between the pipeline and the event file, and executes ``run.on_stall`` when work stops showing."""

    def __init__(
        self,
        run: RunDir,
        config: RunConfig,
        emit: Callable[[events.Event], None],
        paused: Callable[[], bool],
    ) -> None:
        super().__init__(name="stall-watch", daemon=True)
        self._run, self._config, self._emit, self._paused = run, config, emit, paused
        self._quiet = Quiet(config.run.stall_seconds, time.monotonic())
        self._done = threading.Event()

    def emit(self, event: events.Event) -> None:
        """Pass an event on."""
        self._quiet.note(event, time.monotonic())
        self._emit(event)

    def run(self) -> None:
        while not self._done.wait(LOOK_SECONDS):
            if self._quiet.due(time.monotonic(), self._paused()):
                seconds = f"{self._config.run.stall_seconds:g}"
                self._emit(events.Log(message=f"stalled: nothing was finished for {seconds} s", level="warning"))
                facts = facts_of(self._run, self._config, "stalled", seconds=seconds)
                call("on_stall", self._config.run.on_stall, facts, self._emit)

    def stop(self) -> None:
        self._done.set()
        self.join(HOOK_SECONDS)
