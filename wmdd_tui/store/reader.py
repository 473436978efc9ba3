"""Incremental reading of an event file by stat and read, which also works on network file systems."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine import events
from engine.rundir import RunDir

#: One poll's worth of whole lines: decoding it takes some milliseconds, during which no key is answered.
CHUNK_BYTES = 1 << 18
PIECES = 8
#: The names of 100,000 classes stand in one line; what is longer is no line of ours.
LONGEST_LINE = 8 << 20
#: No group is larger; a number beyond is rubbish.
MOST_RANKS = 4096


class _Head(msgspec.Struct):
    """What can be told of a line that is no event of ours."""

    kind: str
    schema: int | float | str = 0


class EventTail:
    """Reads what was appended since the last poll, up to the last newline.

    Survives a file that is missing, truncated or replaced. ``damaged`` counts lines that are no event, ``unknown``
    events of kinds this version does not know; ``newer`` is a message once a process with a newer schema has written,
    from where on nothing is understood. ``share`` is how much of the file has been read, from 0 to 1; ``restarts``
    counts how often it was found shorter, or another file, and read from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = 0
        self._size = 0
        self.damaged = 0
        self.unknown = 0
        self.newer = ""
        self.restarts = 0

    @property
    def position(self) -> int:
        """Bytes read so far; it stands still at the end of the file."""
        return self._offset

    @property
    def share(self) -> float:
        return min(1.0, self._offset / self._size) if self._size else 1.0

    def poll(self, limit: int = CHUNK_BYTES) -> list[events.AnyEvent]:
        """New events from at most ``limit`` bytes; an empty list at the end of the file.

        Pieces without an event are passed over, though not so many that a fast writer of garbage holds the caller.
        """
        for _ in range(PIECES):
            data = self._read(limit)
            if not data:
                break
            if found := self.decode(data):
                return found
        return []

    def _read(self, limit: int) -> bytes:
        """The next whole lines; nothing when there are none."""
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._offset:
                    self.restarts += bool(self._inode)
                    self._inode, self._offset = facts.st_ino, 0
                    self.damaged, self.unknown, self.newer = 0, 0, ""
                self._size = facts.st_size
                file.seek(self._offset)
                data = file.read(limit)
                if len(data) == limit and b"\n" not in data:
                    data += file.read(max(0, LONGEST_LINE - limit))
        except OSError:
            return b""
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= LONGEST_LINE:
            end = len(data)  # garbage: pass over it
        self._offset += end
        return data[:end]

    def decode(self, data: bytes) -> list[events.AnyEvent]:
        """The events of whole lines; what is none is counted."""
        whole = None if self.newer else events.decode_lines(data)
        if whole is not None and not any(type(event) is events.Hello for event in whole):
            return whole
        found: list[events.AnyEvent] = []
        for line in data.split(b"\n"):
            event = events.decode(line)
            if event is None:
                self._note(line)
            elif isinstance(event, events.Hello):
                self.newer = _refusal(event.schema)
            if event is not None and not self.newer:
                found.append(event)
        return found

    def _note(self, line: bytes) -> None:
        """Count a line that is no event of ours."""
        if not line.strip():
            return
        try:
            head = msgspec.json.decode(line, type=_Head)
        except events.NOT_AN_EVENT:
            self.damaged += 1
            return
        if head.kind == "hello":
            self.newer = _refusal(head.schema) or self.newer
        elif head.kind not in events.KINDS:
            self.unknown += 1
            return
        self.damaged += not self.newer


class RunTail:
    """The events of all ranks of a run as one ``EventTail`` would give them: the first rank's before the others'.

    The first rank says how many there are. When one file begins anew, all are read again.
    """

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._restarts = 0
        self._begin()

    def _begin(self) -> None:
        self._tails = [EventTail(self._run.events_file)]

    @property
    def position(self) -> int:
        """Bytes read so far of all files; it stands still at their ends."""
        return sum(tail.position for tail in self._tails)

    @property
    def share(self) -> float:
        return sum(tail.share for tail in self._tails) / len(self._tails)

    @property
    def damaged(self) -> int:
        return sum(tail.damaged for tail in self._tails)

    @property
    def unknown(self) -> int:
        return sum(tail.unknown for tail in self._tails)

    @property
    def newer(self) -> str:
        return next((tail.newer for tail in self._tails if tail.newer), "")

    @property
    def restarts(self) -> int:
        return self._restarts + sum(tail.restarts for tail in self._tails)

    def poll(self, limit: int = CHUNK_BYTES) -> list[events.AnyEvent]:
        """New events of the first rank that has any, from at most ``limit`` bytes; an empty list at all ends."""
        before = self.restarts
        for tail in self._tails:
            found = tail.poll(limit)
            if self.restarts > before and len(self._tails) > 1:
                self._restarts = before + 1
                self._begin()
                return self.poll(limit)
            if found:
                ranks = max((event.ranks for event in found if type(event) is events.Hello), default=1)
                for number in range(len(self._tails), min(ranks, MOST_RANKS)):
                    self._tails.append(EventTail(self._run.rank_events_file(number)))
                return found
        return []


def _refusal(schema: float | str) -> str:
    """Why events of a schema cannot be shown; empty when they can."""
    if not isinstance(schema, str) and schema <= events.SCHEMA:
        return ""
    return f"this run was written by a newer version (schema {str(schema)[:20]}); please upgrade wmdd-tui"


@dataclass(frozen=True)
class Latest:
    """The last events of a file; ``newer`` says why there are none, where a newer version has written it."""

    found: list[events.AnyEvent]
    newer: str


def latest(path: Path, size: int) -> Latest:
    """The whole lines among the last ``size`` bytes of an event file; of the rest only the first is looked at."""
    tail = EventTail(path)
    try:
        with path.open("rb") as file:
            first = file.readline(LONGEST_LINE)
            begin = max(len(first), file.seek(0, os.SEEK_END) - size)
            file.seek(begin)
            data = file.read()
    except OSError:
        return Latest([], "")
    found = tail.decode(first) if first.endswith(b"\n") else []
    if begin > len(first):
        data = data[data.find(b"\n") + 1 :]  # it began within a line
    found += tail.decode(data[: data.rfind(b"\n") + 1])
    return Latest([] if tail.newer else found, tail.newer)
