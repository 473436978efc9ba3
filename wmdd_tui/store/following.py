"""Following a run's files: the events into a view, the state, the disk; one bounded piece of work at a time."""

from __future__ import annotations

import time
from threading import Lock

from engine.rundir import ALIVE, RunDir, state_of
from wmdd_tui.store.ahead import Ahead
from wmdd_tui.store.alerts import low_disk
from wmdd_tui.store.reader import RunTail
from wmdd_tui.store.view import RunView

STATE_SECONDS = 1.0
#: A long file is shown as far as it has been read this often, and a fast writer cannot keep the screen from it.
PIECE_SECONDS = 1.0
#: A process that reads ahead is waited for in so short turns, for the screen may be left meanwhile.
AHEAD_SECONDS = 0.2


class Follower:
    """What one thread knows of one run. ``lock`` is held while the view changes, which another thread may draw.

    ``ahead`` is a process that began to read before there was a screen.
    """

    def __init__(self, run: RunDir, view: RunView, lock: Lock, ahead: Ahead | None = None) -> None:
        self._run, self._view, self._lock, self._ahead = run, view, lock, ahead
        self._tail = RunTail(run)
        self._looked = 0.0
        self.state = ""
        self.disk = ""
        self.caught_up = False

    def step(self, read: bool = True) -> bool:
        """Read what is new, for at most ``PIECE_SECONDS``; True when there is something to show."""
        begin, fresh = time.monotonic(), False
        self.caught_up = True
        if read and self._ahead is not None:
            read = self.caught_up = self._ahead.ready(AHEAD_SECONDS)
            fresh = read and self._take_over(self._ahead)
        while read and self._take_in():
            fresh = True
            if time.monotonic() - begin > PIECE_SECONDS:
                self.caught_up = False
                break
        if fresh and self.caught_up:
            with self._lock:
                self._view.note_reading(1.0, self._tail.damaged, self._tail.unknown)
        before = self.state, self.disk
        if fresh or time.monotonic() - self._looked > STATE_SECONDS:
            self._look()
        return fresh or (self.state, self.disk) != before

    def _take_in(self) -> bool:
        """Read one piece of the file; False at its end."""
        tail = self._tail
        before = tail.position, tail.restarts
        batch = tail.poll()
        if (tail.position, tail.restarts) == before:
            return False
        with self._lock:
            if tail.restarts > before[1]:
                self._view.start_over()
            self._view.apply_all(batch)
            self._view.note_reading(tail.share, tail.damaged, tail.unknown)
        return True

    def _take_over(self, ahead: Ahead) -> bool:
        """Go on from where the other process has come; False should it have failed, and all is still to be read."""
        found, self._ahead = ahead.take(), None
        if found is None:
            return False
        with self._lock:
            self._tail, view = found
            self._view.become(view)
        return True

    def _look(self) -> None:
        self._looked = time.monotonic()
        self.state = self._tail.newer or (state_of(self._run) if self._run.path.is_dir() else "vanished")
        self.disk = low_disk(self._run.path) if self.state in ALIVE else ""


def read_view(run: RunDir) -> RunView:
    """The whole view of a run as it is now; that a newer version has written it is one of its alerts."""
    tail, view = read_all(run)
    view.alerts += [tail.newer] if tail.newer else []
    return view


def read_all(run: RunDir) -> tuple[RunTail, RunView]:
    """The view of all events of a run as it is now, and the tail that goes on from there."""
    tail, view = RunTail(run), RunView()
    position = -1
    while tail.position > position:
        position = tail.position
        view.apply_all(tail.poll())
    view.note_reading(1.0, tail.damaged, tail.unknown)
    return tail, view
