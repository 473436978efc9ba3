"""One queue per device, without a daemon: waiting engines look for themselves whether it is their turn.

Every engine, waiting or at work, has a ticket in ``$WMDD_HOME/queue/HOST/DEVICE/RUN_ID.json``. The ticket holds the
order and what its process does; whether that process lives is derived from the run's lock, never stored. All reading
and writing of tickets happens under a lock of the device's folder, so two engines never take the same turn.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from engine import devices, events, rundir
from engine.control import Control
from engine.distributed.ranks import MASK, named_devices
from engine.errors import RunDirError, Stopped

ARRIVAL_SECONDS = 30.0
POLL_SECONDS = 1.0
BEAT_SECONDS = 10.0
END = 1 << 30


#: A path as the system takes it.
PathText = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$")]


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A run's place. ``doing``: submitted (its engine was launched and has not arrived), waiting, held (waiting and
    paused) or running. ``since`` is the Unix time of submission."""

    run_id: str
    path: PathText
    order: int
    doing: Literal["submitted", "waiting", "held", "running"]
    since: float

    @property
    def run(self) -> rundir.RunDir:
        return rundir.RunDir(Path(self.path))


@dataclass(frozen=True)
class Place:
    """A ticket as people see it: ``position`` is 0 for a run at work, else its place in the line from 1."""

    device: str
    run_id: str
    path: str
    doing: str
    position: int


def is_dead(ticket: Ticket, alive: bool, now: float) -> bool:
    """Whether a ticket's process is gone; a launched one has half a minute to arrive."""
    arriving = ticket.doing == "submitted" and abs(now - ticket.since) < ARRIVAL_SECONDS
    return not (alive or arriving)


def line_of(tickets: Sequence[Ticket]) -> list[Ticket]:
    """Those that wait, in their order."""
    return sorted((one for one in tickets if one.doing != "running"), key=lambda one: (one.order, one.run_id))


def next_run(tickets: Sequence[Ticket]) -> str:
    """Id of the run whose turn it is among live tickets; "" while the device is busy or nobody may start.

    A held run is passed over. A run whose engine has not arrived yet is waited for, so that order is kept.
    """
    if any(one.doing == "running" for one in tickets):
        return ""
    first = next((one for one in line_of(tickets) if one.doing != "held"), None)
    return first.run_id if first is not None and first.doing == "waiting" else ""


def moved(line: Sequence[str], run_id: str, position: int) -> list[str]:
    """The line with one run at another place, counted from 1; places beyond an end mean that end."""
    rest = [one for one in line if one != run_id]
    index = max(0, min(position - 1, len(rest)))
    return [*rest[:index], run_id, *rest[index:]]


def places_of(device: str, tickets: Sequence[Ticket]) -> list[Place]:
    """Runs at work first, then the line."""
    working = [Place(device, one.run_id, one.path, one.doing, 0) for one in tickets if one.doing == "running"]
    waiting = [Place(device, t.run_id, t.path, t.doing, n) for n, t in enumerate(line_of(tickets), start=1)]
    return working + waiting


# --- tickets on disk --------------------------------------------------------------------------------------


def root() -> Path:
    """The folder of this host's queues; hosts that share a home have queues of their own."""
    return rundir.home() / "queue" / socket.gethostname()


@contextmanager
def _locked(device: str) -> Iterator[Path]:
    """The device's folder under its lock. Raises RunDirError where it cannot be written."""
    folder = root() / device
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunDirError(
            f"the queue {folder} cannot be used: {error.strerror}", "set WMDD_HOME to a folder you can write to"
        ) from None
    try:
        with suppress(OSError):  # a file system without locks: the worst case is two runs at once
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    except OSError as error:
        raise RunDirError(f"the queue {folder} cannot be used: {error.strerror}", "free some space there") from None
    finally:
        os.close(descriptor)


def _alive(ticket: Ticket) -> bool:
    held = rundir.lock_held(ticket.run)
    if held is None:  # no lock file: nothing ever ran there; else no locks here: by heartbeat
        return ticket.run.lock_file.exists() and rundir.state_of(ticket.run) in rundir.ALIVE
    return held


def _read(folder: Path) -> list[Ticket]:
    """The live tickets of a folder; those of dead processes and damaged ones are cleared away."""
    found = []
    for file in folder.glob("*.json"):
        try:
            ticket = msgspec.json.decode(file.read_bytes(), type=Ticket)
        except (OSError, *events.NOT_AN_EVENT):
            ticket = None
        if ticket is None or is_dead(ticket, _alive(ticket), time.time()):
            with suppress(OSError):
                file.unlink()
        else:
            found.append(ticket)
    return found


def _write(folder: Path, ticket: Ticket) -> None:
    rundir.write_whole(folder / f"{ticket.run_id}.json", msgspec.json.encode(ticket))


def _devices() -> list[str]:
    try:
        return sorted(entry.name for entry in root().iterdir() if entry.is_dir())
    except OSError:
        return []


def places() -> list[Place]:
    """Everything at work or waiting on this host, device by device."""
    found = []
    for device in _devices():
        with suppress(RunDirError), _locked(device) as folder:
            found += places_of(device, _read(folder))
    return found


def place_of(run: rundir.RunDir) -> Place | None:
    """Where a run stands, or None where it neither waits nor works."""
    return next((place for place in places() if place.run_id == run.id), None)


def submit(run: rundir.RunDir) -> Place:
    """Put a run that is about to be launched at the end of its devices' lines; its place on the first of them.

    Raises EngineError.
    """
    withdraw(run)
    for device in reversed(_of_run(run)):
        with _locked(device) as folder:
            tickets = _read(folder)
            order = max((one.order for one in tickets), default=0) + 1
            ticket = Ticket(run_id=run.id, path=str(run.path), order=order, doing="submitted", since=time.time())
            _write(folder, ticket)
            place = next(place for place in places_of(device, [*tickets, ticket]) if place.run_id == run.id)
    return place


def _of_run(run: rundir.RunDir) -> list[str]:
    """The devices a run occupies, in the order in which every run takes its turns: none waits for another in a ring."""
    section = run.config().run
    names = named_devices(section.devices, os.environ.get(MASK)) if section.devices else [section.device]
    return sorted({devices.resolve_here(name) for name in names})


def withdraw(run: rundir.RunDir) -> None:
    """Clear a run's ticket wherever it lies; nothing happens to its process."""
    for device in _devices():
        with suppress(OSError):
            (root() / device / f"{run.id}.json").unlink()


def move(run: rundir.RunDir, position: int) -> Place:
    """Give a waiting run another place in its line, from 1. Raises RunDirError where it does not wait."""
    place = _waiting_place(run)
    with _locked(place.device) as folder:
        tickets = {one.run_id: one for one in _read(folder)}
        line = [one.run_id for one in line_of(list(tickets.values()))]
        if run.id in line:
            for order, run_id in enumerate(moved(line, run.id, position), start=1):
                if tickets[run_id].order != order:
                    _write(folder, msgspec.structs.replace(tickets[run_id], order=order))
    return _waiting_place(run)


def remove(run: rundir.RunDir) -> None:
    """Take a waiting run out: its process ends as stopped, and can be resumed. Raises RunDirError."""
    _waiting_place(run)
    run.request("stop")


def _waiting_place(run: rundir.RunDir) -> Place:
    place = place_of(run)
    if place is None:
        raise RunDirError(
            f"run {run.id} is {rundir.state_of(run)} and stands in no queue", "`wmdd-tui queue` lists those that do"
        )
    if place.position == 0:
        raise RunDirError(
            f"run {run.id} is at work on {place.device} already", f"stop it with `wmdd-tui stop {run.id}`"
        )
    return place


# --- the engine's side ------------------------------------------------------------------------------------


@contextmanager
def occupied(run: rundir.RunDir, emit: Callable[[events.Event], None], control: Control) -> Iterator[None]:
    """Occupy the run's devices; a submitted run waits for its turns first. The caller holds the run's lock.

    Raises Stopped when the run is asked to stop before its turn, ConfigError, and RunDirError where the queue cannot
    be used by a run that must wait; a run that need not wait goes on unregistered and says so.
    """
    try:
        for device in _of_run(run):
            try:
                waits = _arrive(run, device)
            except RunDirError as error:
                waits = False
                emit(events.Log(message=f"not registered on {device}: {error.message}", level="warning"))
            if waits:
                _wait(run, device, emit, control)
        yield
    finally:
        withdraw(run)


def _arrive(run: rundir.RunDir, device: str) -> bool:
    """Make the ticket this process's own; True where it was submitted to wait."""
    with _locked(device) as folder:
        mine = next((one for one in _read(folder) if one.run_id == run.id), None)
        # A ticket that says otherwise was left by a dead process of this run, whose lock is now ours.
        waits = mine is not None and mine.doing == "submitted"
        order = mine.order if mine is not None else 0
        doing: Literal["waiting", "running"] = "waiting" if waits else "running"
        _write(
            folder, Ticket(run_id=run.id, path=str(run.path), order=order, doing=doing, since=time.time())
        )  # fmt: skip
    return waits


def _take_turn(run: rundir.RunDir, device: str, held: bool) -> Place | None:
    """Take the turn if it has come, and return None; else the place as it is now."""
    with _locked(device) as folder:
        tickets = {one.run_id: one for one in _read(folder)}
        mine = tickets.get(run.id)
        if mine is None:  # somebody cleared the folder: queue up again
            order = max((one.order for one in tickets.values()), default=0) + 1
            mine = Ticket(run_id=run.id, path=str(run.path), order=order, doing="waiting", since=time.time())
        wanted = msgspec.structs.replace(mine, doing="held" if held else "waiting")
        tickets[run.id] = wanted
        taken = next_run(list(tickets.values())) == run.id
        if taken:
            wanted = msgspec.structs.replace(wanted, doing="running")
        if wanted != mine:
            _write(folder, wanted)
        line = places_of(device, list(tickets.values()))
    return None if taken else next(place for place in line if place.run_id == run.id)


def _wait(run: rundir.RunDir, device: str, emit: Callable[[events.Event], None], control: Control) -> None:
    beat_at, told = float("-inf"), (0, False)
    while True:
        if control.stop_asked():
            raise Stopped("taken out of the queue before its turn")
        place = _take_turn(run, device, control.paused)
        if place is None:
            emit(events.Beat())
            emit(events.Log(message=f"its turn on {device} has come"))
            return
        now = (place.position, control.paused)
        if now != told:
            held = ", paused" if control.paused else ""
            emit(events.Log(message=f"queued on {device}: place {place.position} in the line{held}"))
        if now != told or time.monotonic() - beat_at > BEAT_SECONDS:
            emit(events.Beat(paused=control.paused, queued=True))
            beat_at, told = time.monotonic(), now
        control.wait(POLL_SECONDS)
