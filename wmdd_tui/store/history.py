"""The whole of a run's events, read once in bounded pieces; for commands that look at runs which have been."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from engine import events
from engine.rundir import RunDir
from wmdd_tui.store.reader import RunTail

#: Called with the work done and the work in all, in any unit.
Report = Callable[[int, int], None]


def silent(_done: int, _total: int) -> None:
    """A report to no one."""


def share_of(report: Report, index: int, parts: int) -> Report:
    """A report for one of several equal parts of the work; the whole is reported in percent of a part."""
    return lambda done, total: report(100 * index + 100 * done // max(total, 1), 100 * parts)


def all_events(run: RunDir, report: Report = silent) -> Iterator[events.AnyEvent]:
    """Every readable event of a run, in order, the first rank's before the others'; none where there is no file.

    ``report`` is told of bytes read.
    """
    size = sum(_size(file) for file in (run.events_file, *run.path.glob("events.rank-*.jsonl")))
    tail = RunTail(run)
    before = -1
    while before < tail.position < size:
        before = tail.position
        yield from tail.poll()
        report(min(tail.position, size), size)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def first_hello(run: RunDir) -> events.Hello | None:
    """What the engine said of the run at its start; None for a run that never came so far."""
    return next((event for event in all_events(run) if isinstance(event, events.Hello)), None)
