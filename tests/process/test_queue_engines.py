"""The queue with the true engine: its processes go on without whoever launched them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine import events, queueing, rundir

SHORT = [
    "data.max_per_class=10", "teacher.width=8", "squeeze.epochs=1", "run.threads=1", "run.use_cache=false",
    'run.until="squeeze"', 'run.device="cpu"',
]  # fmt: skip
LONG = [*SHORT[:2], "squeeze.epochs=100000", *SHORT[3:]]
PATIENCE = 120.0


def command(*arguments: str) -> str:
    """A command in a process of its own, which is gone when this returns."""
    done = subprocess.run([sys.executable, "-m", "wmdd_tui", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def begin(name: str, settings: list[str], *flags: str) -> rundir.RunDir:
    assignments = [word for setting in settings for word in ("--set", setting)]
    answer = json.loads(command("run", "--name", name, *flags, "--detach", "--json", *assignments))
    return rundir.RunDir(Path(answer["run_dir"]))


def until(condition: Callable[[], bool], *runs: rundir.RunDir) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            told = {run.id: (rundir.state_of(run), run.console_file.read_text()) for run in runs}
            pytest.fail(f"waited in vain: {told}")
        time.sleep(0.05)  # the pace of asking


def state(run: rundir.RunDir) -> str:
    return rundir.state_of(run)


def seen(run: rundir.RunDir, kind: type[events.Event]) -> list[events.AnyEvent]:
    return [event for event in events.read(run.events_file) if isinstance(event, kind)]


def test_the_second_run_starts_when_the_first_has_ended() -> None:
    first = begin("first", SHORT, "--queue")
    second = begin("second", SHORT, "--queue")
    until(lambda: state(second) == "queued", first, second)
    process = rundir.identified(second)
    assert process is not None
    assert not any("torch" in part.path for part in process.memory_maps()), "a waiting run costs no torch"
    assert process.ppid() in (1, *_reapers()), "its launcher is gone"
    until(lambda: state(first) == state(second) == "finished", first, second)
    assert seen(second, events.Hello)[0].t >= seen(first, events.End)[-1].t
    assert queueing.places() == []


def _reapers() -> list[int]:
    """Processes that take in orphans: where a container or a user session has one, it need not be number 1."""
    return [process.pid for process in psutil.Process().parents()]


def test_move_remove_and_a_killed_run_frees_its_device() -> None:
    busy = begin("busy", LONG)
    until(lambda: state(busy) == "running" and bool(seen(busy, events.Progress)), busy)
    dropped, later, sooner = (begin(name, SHORT, "--queue") for name in ("dropped", "later", "sooner"))
    until(lambda: {state(dropped), state(later), state(sooner)} == {"queued"}, dropped, later, sooner)

    listed = json.loads(command("queue", "--json"))
    assert [(place["run_id"], place["position"]) for place in listed] == [
        (busy.id, 0), (dropped.id, 1), (later.id, 2), (sooner.id, 3),
    ]  # fmt: skip
    assert json.loads(command("queue", "move", "sooner", "--first", "--json"))["position"] == 1
    command("queue", "remove", "dropped")
    until(lambda: state(dropped) == "stopped", dropped)
    assert "before its turn" in seen(dropped, events.End)[-1].message  # type: ignore[union-attr]
    assert "at work" in command("queue", "list")
    assert "later" in command("queue", "list")

    assert rundir.kill(busy)
    until(lambda: state(later) == state(sooner) == "finished", busy, later, sooner)
    assert state(busy) == "crashed"
    assert not seen(sooner, events.Hello)[0].t < seen(busy, events.Progress)[-1].t
    assert seen(later, events.Hello)[0].t >= seen(sooner, events.End)[-1].t
    assert not seen(dropped, events.Hello)


def test_pausing_a_waiting_run_lets_others_pass_and_a_second_kill_hurts_nobody() -> None:
    busy = begin("busy", LONG)
    until(lambda: bool(busy.events_file.exists() and seen(busy, events.Progress)), busy)
    patient, eager, doomed = (begin(name, SHORT, "--queue") for name in ("patient", "eager", "doomed"))
    until(lambda: {state(patient), state(eager), state(doomed)} == {"queued"}, patient, eager, doomed)
    command("pause", "patient")
    until(lambda: state(patient) == "paused", patient)
    assert rundir.kill(doomed)
    until(lambda: state(doomed) == "crashed", doomed)
    command("stop", "busy")
    until(lambda: state(eager) == "finished", busy, eager)
    assert state(patient) == "paused"
    command("unpause", "patient")
    until(lambda: state(patient) == "finished", patient)
    command("resume", "doomed", "--queue", "--detach")
    until(lambda: state(doomed) == "finished", doomed)
