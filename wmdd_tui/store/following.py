"""Following a run's files: the events into a view, the state, the disk; one bounded piece of work at a time."""

from __future__ import annotations

import time
from threading import Lock

from engine.rundir import ALIVE, RunDir, state_of
from wmdd_tui.store.alerts import low_disk
from wmdd_tui.store.reader import EventTail
from wmdd_tui.store.view import RunView

STATE_SECONDS = 1.0
#: A long file is shown as far as it has been read this often, and a fast writer cannot keep the screen from it.
PIECE_SECONDS = 0.5


class Follower:
    """What one thread knows of one run. ``lock`` is held while the view changes, which another thread may draw."""

    def __init__(self, run: RunDir, view: RunView, lock: Lock) -> None:
        self._run, self._view, self._lock = run, view, lock
        self._tail = EventTail(run.events_file)
        self._looked = 0.0
        self.state = ""
        self.disk = ""
        self.caught_up = False

    def step(self, read: bool = True) -> bool:
        """Read what is new, for at most ``PIECE_SECONDS``; True when there is something to show."""
        begin, fresh = time.monotonic(), False
        self.caught_up = True
        while read and (batch := self._tail.poll()):
            with self._lock:
                self._view.apply_all(batch)
                self._view.note_reading(self._tail.share, self._tail.damaged, self._tail.unknown)
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

    def _look(self) -> None:
        self._looked = time.monotonic()
        self.state = self._tail.newer or (state_of(self._run) if self._run.path.is_dir() else "vanished")
        self.disk = low_disk(self._run.path) if self.state in ALIVE else ""
