"""Reading a long run's events in a process of its own, while the dashboard is still being imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING

from engine.rundir import RunDir

if TYPE_CHECKING:
    from wmdd_tui.store.reader import RunTail
    from wmdd_tui.store.view import RunView

#: A shorter file is read before the first frame in any case; the progress of reading a longer one should be seen.
LEAST_BYTES, MOST_BYTES = 8 << 20, 256 << 20


@dataclass(frozen=True)
class Ahead:
    """A process that reads a run's events, and where it hands over what it has read."""

    process: ForkProcess
    receiver: Connection

    def ready(self, seconds: float) -> bool:
        """Whether ``take`` would not wait; looks for so many seconds at most."""
        return self.receiver.poll(seconds)

    def take(self) -> tuple[RunTail, RunView] | None:
        """All that was read, and the tail that goes on from there; None should the process have failed."""
        try:
            # It comes from a process of ours, through a pipe that no one else can reach.
            found: tuple[RunTail, RunView] = self.receiver.recv()
        except (EOFError, OSError):
            return None
        finally:
            self.receiver.close()
            self.process.join()
        return found


def begin(run: RunDir) -> Ahead | None:
    """Start to read; None where that is not worth a process, or a process cannot be made of this one.

    To be called before there are other threads.
    """
    try:
        size = run.events_file.stat().st_size
    except OSError:
        return None
    if sys.platform != "linux" or not LEAST_BYTES <= size <= MOST_BYTES or (os.cpu_count() or 1) < 2:
        return None
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(run, sender), daemon=True)
    process.start()
    sender.close()
    return Ahead(process, receiver)


def _read(run: RunDir, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whose terminal this is sees to it
    from wmdd_tui.store.following import read_all

    sender.send(read_all(run))
