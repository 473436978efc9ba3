"""What the last lines of an event file tell: when somebody last gave a sign of life, and how it ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine import events

TAIL_BYTES = 65536


@dataclass(frozen=True)
class Tail:
    """``end`` is the status of an ``end`` that is the last event, else ""; ``last`` the Unix time of the last
    event, 0 without any; ``size`` the length of the file in bytes."""

    end: str = ""
    last: float = 0.0
    paused: bool = False
    queued: bool = False
    started: bool = False
    size: int = 0


def read_tail(path: Path) -> Tail:
    """Read the end of an event file; a missing or unreadable one tells nothing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return Tail()
    end, last, paused, queued = "", 0.0, False, False
    for line in lines:
        event = events.decode(line)
        if event is None:
            continue
        last = event.t
        end = event.status if isinstance(event, events.End) else ""
        if isinstance(event, events.Beat):
            paused, queued = event.paused, event.queued
    return Tail(end, last, paused, queued, bool(lines), size)


def last_event(path: Path) -> events.AnyEvent | None:
    """The last event of a file, None without one within its last lines."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return next((event for line in reversed(lines) if (event := events.decode(line)) is not None), None)
